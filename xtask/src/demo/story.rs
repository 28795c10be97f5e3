//! The story: what is typed, what must come out.

use std::io::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use cata_tests::cache::Recipe;
use cata_tests::command::{cata_binary, quoted};
use cata_tests::world::World;

const PSQL: [&str; 7] = ["psql", "-h", "127.0.0.1", "-p", "5432", "-U", "postgres"];

/// Plays it. Every step is checked; the first that does not give what it must ends the demo.
pub(crate) fn play(world: &World, keep: bool) -> Result<()> {
    let started = Instant::now();
    for image in ["debian", "postgres"] {
        let args = Recipe::of(image).import_args()?;
        let args: Vec<String> = args.iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let args: Vec<&str> = std::iter::once("cata").chain(args.iter().map(String::as_str)).collect();
        let _ = run(&args, &format!("cata import … {image}"))?;
    }
    heading("A real PostgreSQL, as a container");
    let id = type_in(
        "cata container run --detach --name pg --publish 5432:5432 -e POSTGRES_PASSWORD=password postgres",
    )?;
    let id = id.trim();
    ensure!(id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit()), "`{id}` is no container id");
    wait_for_server()?;

    heading("It is just processes of this host");
    let top = type_in("cata container top pg")?;
    let pids = pids_of(&top)?;
    ensure!(pids.len() >= 5, "PostgreSQL has more processes than {}", pids.len());
    let ps = type_in("ps aux")?;
    for pid in &pids {
        let shown =
            ps.lines().any(|line| line.split_whitespace().nth(1) == Some(pid) && line.contains("postgres"));
        ensure!(shown, "`ps aux` does not show process {pid}");
    }

    heading("Through the published port");
    psql("create table t (id int primary key, name text)")?;
    psql("insert into t values (1, 'port'), (2, 'starboard'), (3, 'deck')")?;
    let rows = psql("select * from t order by id")?;
    ensure!(rows.contains("starboard"), "the row is not there");

    heading("Inside");
    count_rows()?;

    heading("Stopped, it is exited; started again, the rows are still there");
    let _ = type_in("cata stop pg")?;
    let ps = type_in("cata ps -a")?;
    ensure!(ps.contains("Exited (0)"), "the container is not `Exited (0)`");
    for pid in &pids {
        ensure!(!std::path::Path::new("/proc").join(pid).exists(), "process {pid} outlived its container");
    }
    let _ = type_in("cata start pg")?;
    wait_for_server()?;
    count_rows()?;

    heading("What it said, and what it is");
    let logs = type_in("cata logs --tail 5 pg")?;
    ensure!(
        logs.lines().count() == 5 && logs.contains("ready to accept connections"),
        "not the last five lines"
    );
    let inspect: serde_json::Value =
        serde_json::from_str(&type_in("cata inspect pg")?).context("inspect's JSON")?;
    ensure!(inspect[0]["Id"] == id && inspect[0]["State"]["Running"] == true, "inspect shows something else");

    if !keep {
        heading("Gone");
        let _ = type_in("cata rm -f -v pg")?;
        let left = run(&["cata", "ps", "-aq"], "cata ps -aq")?
            + &run(&["cata", "volume", "ls", "-q"], "cata volume ls -q")?;
        ensure!(left.is_empty(), "something is left: {left}");
    }

    heading("A terminal, and the host seen from inside");
    on_a_terminal(world)?;
    println!("\nAll of it worked, in {:.1} s.", started.elapsed().as_secs_f64());
    Ok(())
}

fn heading(text: &str) {
    println!("\n# {text}");
}

/// Types a command as one would; none of the story's words needs quotes but SQL, see [`psql`].
fn type_in(line: &str) -> Result<String> {
    run(&line.split(' ').collect::<Vec<_>>(), line)
}

/// Prints a command and its output, and returns the latter.
fn run(words: &[&str], shown: &str) -> Result<String> {
    println!("$ {shown}");
    let program = if words[0] == "cata" { cata_binary() } else { words[0].into() };
    let mut command = Command::new(program);
    command.args(&words[1..]).env("PGPASSWORD", "password");
    let output = command.output().with_context(|| format!("run `{shown}`"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    print!("{text}");
    std::io::stdout().write_all(&output.stderr).context("print")?;
    ensure!(output.status.success(), "`{shown}`: {}", output.status);
    // Of `logs`, both streams are the answer.
    Ok(text + &String::from_utf8_lossy(&output.stderr))
}

fn psql(sql: &str) -> Result<String> {
    let mut words = PSQL.to_vec();
    words.extend(["-c", sql]);
    run(&words, &words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
}

fn count_rows() -> Result<()> {
    let sql = "select count(*) from t";
    let words = ["cata", "exec", "pg", "psql", "-U", "postgres", "-c", sql];
    let count = run(&words, &format!("cata exec pg psql -U postgres -c '{sql}'"))?;
    ensure!(count.lines().any(|line| line.trim() == "3"), "there are not 3 rows");
    Ok(())
}

/// Until the server answers where the port is published; the first start makes the database cluster.
fn wait_for_server() -> Result<()> {
    println!("$ until pg_isready -q -h 127.0.0.1; do sleep 0.1; done");
    let started = Instant::now();
    loop {
        // A mere connection is not enough: the answer must be the server's.
        let ready = Command::new("pg_isready").args(["-q", "-h", "127.0.0.1", "-p", "5432"]).status();
        if ready.context("run `pg_isready` (Debian package postgresql-client)")?.success() {
            return Ok(());
        }
        if started.elapsed() > Duration::from_secs(60) {
            let _ = run(&["cata", "logs", "pg"], "cata logs pg");
            let _ = run(&["cata", "ps", "-a"], "cata ps -a");
            bail!("the server does not answer on 127.0.0.1:5432");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// The PID column of `top`.
fn pids_of(top: &str) -> Result<Vec<String>> {
    let mut lines = top.lines();
    let titles: Vec<&str> = lines.next().unwrap_or_default().split_whitespace().collect();
    ensure!(titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"], "`top` has other columns");
    lines.map(|line| line.split_whitespace().nth(1).map(str::to_owned).context("a line of `top`")).collect()
}

/// The `-it` step, typed at a shell in tmux; what its window shows is printed.
fn on_a_terminal(world: &World) -> Result<()> {
    let socket = format!("{}-tmux", world.name);
    let tmux = |args: &[&str]| -> Result<String> {
        let output = Command::new("tmux").args(["-L", &socket, "-f", "/dev/null"]).args(args).output();
        let output = output.context("run `tmux`")?;
        ensure!(output.status.success(), "tmux: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let folder = cata_binary().parent().map(|dir| dir.to_string_lossy().into_owned()).unwrap_or_default();
    let path = format!("PATH={folder}:{}", std::env::var("PATH").unwrap_or_default());
    let _ = tmux(&[
        "new-session",
        "-d",
        "-x",
        "140",
        "-y",
        "60",
        "env",
        &path,
        "PS1=$ ",
        "bash",
        "--norc",
        "--noprofile",
    ])?;
    // What is typed before the shell listens would be shown twice.
    let started = Instant::now();
    while !tmux(&["capture-pane", "-p"])?.starts_with('$') && started.elapsed() < Duration::from_secs(5) {
        std::thread::sleep(Duration::from_millis(20));
    }
    let line = "cata run -it --rm --privileged --pid=host debian nsenter -t 1 -m -u -n -i ps aux";
    let _ = tmux(&["send-keys", &format!("{line}; echo exit status $?"), "Enter"])?;
    let started = Instant::now();
    let screen = loop {
        let screen = tmux(&["capture-pane", "-p", "-S", "-"])?;
        // Typed, the line holds `$?`; a digit comes only from the shell that ran it.
        let ended = screen
            .lines()
            .any(|line| line.starts_with("exit status ") && line.ends_with(|c: char| c.is_ascii_digit()));
        if ended || started.elapsed() > Duration::from_secs(30) {
            break screen;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let _ = tmux(&["kill-server"]);
    println!("{}", screen.trim_end());
    ensure!(screen.contains("exit status 0"), "it did not succeed");
    let first = screen.lines().find(|line| line.split_whitespace().nth(1) == Some("1"));
    let first = first.context("`ps aux` does not show process 1")?;
    let own = std::fs::read_to_string("/proc/1/comm").context("read /proc/1/comm")?;
    ensure!(first.contains(own.trim()), "process 1 inside is `{first}`, not this host's `{}`", own.trim());
    Ok(())
}
