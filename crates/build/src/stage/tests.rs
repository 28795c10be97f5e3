//! Stages against the steps and the configuration they must give.

use super::*;
use crate::graph::Graph;

fn planned(text: &str, base: &ContainerConfig, args: &[(&str, &str)]) -> Result<Plan> {
    let given = Given {
        args: args.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        target_platform: "linux/amd64".into(),
        build_platform: "linux/amd64".into(),
        target: None,
    };
    let graph = Graph::new(&crate::parse(text)?, &given)?;
    plan(&graph, graph.target, &given, base, None)
}

fn said(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.created_by.as_str()).collect()
}

#[test]
fn metadata_is_applied_as_docker_does() {
    let text = r#"FROM scratch
ENV A=1 B="two words" C=$A
ENV D=$A$C
LABEL x="$B" y=z
EXPOSE 80 53/udp
VOLUME ["/data"]
USER $B
WORKDIR /srv
WORKDIR app
ENTRYPOINT ["/e"]
CMD echo $A
STOPSIGNAL SIGINT
HEALTHCHECK --interval=1m CMD test -f /x
SHELL ["/bin/bash", "-c"]
CMD true
MAINTAINER me
"#;
    let plan = planned(text, &scratch(), &[]).unwrap();
    let config = &plan.config;
    assert_eq!(config.env[1..], ["A=1", "B=two words", "C=", "D=1"]);
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("two words", "/srv/app"));
    assert_eq!(config.cmd, Some(vec!["/bin/bash".into(), "-c".into(), "true".into()]));
    assert_eq!(config.labels["x"], "two words");
    assert_eq!(config.exposed_ports.len(), 2);
    assert_eq!(config.healthcheck.as_ref().unwrap().interval, 60_000_000_000);
    assert_eq!(plan.author.as_deref(), Some("me"));
    assert!(said(&plan).contains(&"WORKDIR /srv/app"));
    assert!(said(&plan).contains(&"ENV A=1 B=two words C="));
}

#[test]
fn an_entrypoint_resets_an_inherited_command() {
    let base = ContainerConfig { cmd: Some(vec!["old".into()]), ..ContainerConfig::default() };
    assert_eq!(planned("FROM x\nENTRYPOINT [\"e\"]", &base, &[]).unwrap().config.cmd, None);
    let both = planned("FROM x\nCMD [\"c\"]\nENTRYPOINT [\"e\"]", &base, &[]).unwrap();
    assert_eq!(both.config.cmd, Some(vec!["c".into()]));
}

#[test]
fn arguments_are_seen_where_they_are_declared() {
    let text = "ARG G=global\nFROM x\nRUN one $G\nARG G\nARG L=local\nARG E=hidden\nENV E=env\nRUN two\nCOPY $L $G/\n";
    let plan = planned(text, &ContainerConfig::default(), &[("http_proxy", "p"), ("NOPE", "n")]).unwrap();
    let runs: Vec<&RunStep> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Run(run) => Some(run.as_ref()),
            _ => None,
        })
        .collect();
    assert_eq!(runs[0].env, [format!("PATH={PATH}")]);
    assert_eq!(runs[0].proxies, ["http_proxy=p"]);
    assert_eq!(runs[1].env[1..], ["E=env", "G=global", "L=local"]);
    assert!(said(&plan).contains(&"RUN |2 G=global L=local /bin/sh -c two"), "{:?}", said(&plan));
    assert!(said(&plan).contains(&"COPY local global/"));
    let given = planned(text, &ContainerConfig::default(), &[("L", "given"), ("G", "g")]).unwrap();
    assert!(said(&given).contains(&"COPY given g/"));
    assert_eq!(given.consumed, ["G", "L"]);
    assert!(!planned("FROM x\nLABEL a=$UNSET", &scratch(), &[]).unwrap().warnings.is_empty());
}

#[test]
fn heredocs_become_scripts_commands_and_files() {
    let text = "FROM x\nENV V=1\nRUN <<EOF\nset -e\nls $V\nEOF\nRUN <<SCRIPT\n#!/usr/bin/python\nprint(1)\nSCRIPT\nRUN cat <<A > /f\nx\nA\nCOPY <<EOF <<'RAW' /dir/\nv=$V\nEOF\n$V\nRAW\n";
    let plan = planned(text, &ContainerConfig::default(), &[]).unwrap();
    let Action::Run(run) = &plan.steps[1].action else { panic!() };
    assert_eq!(run.argv[2], "set -e\nls $V\n");
    let Action::Run(run) = &plan.steps[2].action else { panic!() };
    assert_eq!(run.argv, ["/dev/pipes/SCRIPT"]);
    assert!(run.script.as_ref().unwrap().1.starts_with("#!/usr/bin/python\n"));
    let Action::Run(run) = &plan.steps[3].action else { panic!() };
    assert_eq!(run.argv[2], "cat <<A > /f\nx\nA");
    let Action::Copy(copy) = &plan.steps[4].action else { panic!() };
    let inline =
        |name: &str, content: &str| CopySource::Inline { name: name.into(), content: content.into() };
    assert_eq!(copy.sources, [inline("EOF", "v=1\n"), inline("RAW", "$V\n")]);
}

#[test]
fn triggers_of_the_base_are_performed_first_and_once() {
    let base = ContainerConfig { on_build: vec!["ENV T=1".into(), "COPY . /app/".into()], ..scratch() };
    let plan = planned("FROM x\nONBUILD RUN y\nENV U=$T", &base, &[]).unwrap();
    assert_eq!(said(&plan), ["ENV T=1", "COPY . /app/", "ONBUILD RUN y", "ENV U=1"]);
    assert_eq!(plan.config.on_build, ["RUN y"]);
    let broken = ContainerConfig { on_build: vec!["RUM y".into()], ..scratch() };
    assert!(planned("FROM x", &broken, &[]).unwrap_err().message.contains("ONBUILD trigger"));
}

#[test]
fn faults_have_their_line() {
    for (text, line) in [
        ("FROM x\n\nEXPOSE none", 3),
        ("FROM x\nRUN --mount=type=cahce,target=/x y", 2),
        ("FROM x\nSTOPSIGNAL SIGNOT", 2),
        ("FROM x\nCOPY --chmod=abc a b", 2),
        ("FROM x\nCOPY ${NOT a b", 2),
        ("FROM x\nCOPY --from=$X a b", 2),
        ("FROM x\nRUN --network=vpn a", 2),
        ("FROM x\nCOPY a b $C", 2),
        ("FROM x\nWORKDIR $NONE", 2),
        ("FROM x\nADD --checksum=sha256:1 a b", 2),
    ] {
        let error = planned(text, &scratch(), &[]).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
    }
}

#[test]
fn a_source_never_leaves_its_origin() {
    let plan = planned(
        "FROM x\nCOPY ../../etc/passwd /abs ./a/../b/ /d/\nADD https://h/f.git https://h/x /d/",
        &scratch(),
        &[],
    )
    .unwrap();
    let Action::Copy(copy) = &plan.steps[0].action else { panic!() };
    let path = |text: &str| CopySource::Path(text.into());
    assert_eq!(copy.sources, [path("etc/passwd"), path("abs"), path("b/")]);
    let Action::Copy(add) = &plan.steps[1].action else { panic!() };
    assert!(matches!(add.sources[..], [CopySource::Git(_), CopySource::Url(_)]));
}
