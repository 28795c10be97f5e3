//! Flags as typed to the request they make.

use cata_engine::request::{CreateRequest, MountSource, NetworkMode};
use clap::{Args as _, FromArgMatches as _};

use super::{Surroundings, Use, request};
use crate::options::create::CreateOptions;
use crate::parse::ParseError;

fn convert(line: &str, using: Use) -> Result<CreateRequest, String> {
    let command =
        crate::tree::relaxed(CreateOptions::augment_args(clap::Command::new("run").no_binary_name(true)));
    let matches = command
        .disable_help_flag(true)
        .try_get_matches_from(line.split_whitespace())
        .map_err(|e| e.to_string())?;
    let options = CreateOptions::from_arg_matches(&matches).map_err(|e| e.to_string())?;
    let around = Surroundings {
        current_dir: "/home/me",
        variable: &|name| (name == "HOME").then(|| "/root".to_owned()),
        read: &|path| match path {
            "env" => Ok("A=file\nB=file\n".to_owned()),
            "labels" => Ok("# c\nx=1\n".to_owned()),
            _ => Err(ParseError::new(format!("open {path}: no such file or directory"))),
        },
    };
    request(options, vec!["busybox".to_owned(), "sh".to_owned()], using, &around).map_err(|e| e.to_string())
}

#[test]
fn request_carries_what_was_typed() {
    let line = "-itd --name pg -e A=flag -e HOME --env-file env -l y=2 --label-file labels -w /srv -u 5:6 -h box \
        --entrypoint /init -p 8080:80 -p 53:53/udp --network app --network-alias db --memory 64m --cpus 1.5 \
        --pids-limit -1 --ulimit nofile=10:20 -v pg:/data:ro --tmpfs /run --restart on-failure:3 --stop-timeout -1 \
        --health-cmd true --health-interval 5s --security-opt no-new-privileges --cap-add NET_ADMIN";
    let line = line.replace("-itd", "-it");
    let got = convert(&line, Use::Detached).unwrap();
    assert_eq!(got.name.unwrap().as_str(), "pg");
    let env: Vec<String> = got.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(env, ["A=flag", "B=file", "HOME=/root"]);
    assert_eq!(got.labels.into_iter().map(|(k, v)| k + &v).collect::<Vec<_>>(), ["x1", "y2"]);
    assert_eq!(got.entrypoint, Some(vec!["/init".to_owned()]));
    assert_eq!(got.ports.len(), 2);
    let NetworkMode::Networks(networks) = got.network else { panic!("not networks") };
    assert_eq!(networks[0].aliases, ["db"]);
    assert_eq!(got.resources.memory, Some(64 << 20));
    assert_eq!(got.resources.pids, Some(-1));
    assert_eq!(got.stop_timeout, Some(-1));
    assert!(got.tty && got.open_stdin && !got.attach.stdout && !got.stdin_once);
    assert!(matches!(got.mounts[0].source, MountSource::Volume { .. }) && got.mounts[0].read_only);
    assert_eq!(got.health.interval, Some(5_000_000_000));
}

#[test]
fn foreground_attaches_outputs_and_input_once() {
    let got = convert("-i", Use::Foreground).unwrap();
    assert!(got.attach.stdin && got.attach.stdout && got.attach.stderr && got.stdin_once);
    let got = convert("-a stdout", Use::Foreground).unwrap();
    assert!(got.attach.stdout && !got.attach.stderr && !got.attach.stdin);
}

#[test]
fn booleans_take_gos_spellings() {
    let got = convert("--tty=true --rm=1 --init=false --read-only -t=false", Use::Foreground).unwrap();
    assert!(!got.tty && got.auto_remove && !got.init && got.read_only);
    assert!(convert("--rm=maybe", Use::Foreground).is_err());
}

#[test]
fn request_refuses_conflicts_by_name() {
    let lines = [
        "--rm --restart always",
        "--cpus 1 --cpu-quota 5",
        "--no-healthcheck --health-cmd x",
        "-v /a:/x --tmpfs /x/",
        "-w rel",
        "--name -",
        "--env-file nope",
        "--oom-score-adj 2000",
        "--blkio-weight 5",
        "--sysctl x",
        "-e =x",
    ];
    let texts: Vec<String> = lines
        .iter()
        .map(|line| format!("{line} => {}", convert(line, Use::Foreground).unwrap_err()))
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r"
    --rm --restart always => conflicting options: cannot specify both --restart and --rm
    --cpus 1 --cpu-quota 5 => Conflicting options: Nano CPUs and CPU Period/Quota cannot both be set: use --cpus or --cpu-quota
    --no-healthcheck --health-cmd x => --no-healthcheck conflicts with --health-* options
    -v /a:/x --tmpfs /x/ => Duplicate mount point: /x/
    -w rel => the working directory 'rel' is invalid, it needs to be an absolute path
    --name - => Invalid container name (-), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, two characters at least
    --env-file nope => open nope: no such file or directory
    --oom-score-adj 2000 => Invalid value 2000, range for oom score adj is [-1000, 1000]
    --blkio-weight 5 => Range of blkio weight is from 10 to 1000
    --sysctl x => invalid sysctl 'x': must be formatted as key=value
    -e =x => invalid environment variable: =x
    ");
}
