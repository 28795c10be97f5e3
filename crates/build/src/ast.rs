//! A Dockerfile as written: nothing is expanded yet.

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dockerfile {
    /// The lines above everything that tell how to read it.
    pub directives: Directives,
    /// In order.
    pub instructions: Vec<Instruction>,
    /// Lines that are read as if something else stood there, for the lint.
    pub oddities: Vec<Oddity>,
}

/// `# name=value` lines at the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// `# syntax=`: an image that would read the file; kept, and not used.
    pub syntax: Option<String>,
    /// `# escape=`: a backslash or a backquote.
    pub escape: char,
    /// `# check=`: what the lint is told.
    pub check: Option<String>,
}

impl Default for Directives {
    fn default() -> Self {
        Self { syntax: None, escape: '\\', check: None }
    }
}

/// Something tolerated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oddity {
    /// Where.
    pub line: usize,
    /// What.
    pub kind: OddityKind,
}

/// Kinds of tolerated things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddityKind {
    /// An empty line within a continued instruction.
    EmptyContinuation,
}

/// One instruction.
#[derive(Debug, Clone, Eq)]
pub struct Instruction {
    /// Its first line.
    pub line: usize,
    /// Its last line, here-documents included.
    pub last_line: usize,
    /// As written, continued lines joined; without here-documents.
    pub text: String,
    /// The keyword as written.
    pub keyword: String,
    /// Comments right above it, without their marks: of ARG and FROM they may describe what is named.
    pub comments: Vec<String>,
    /// What it says.
    pub kind: Kind,
}

/// Where an instruction stands, and how it was typed, does not make it another one.
impl PartialEq for Instruction {
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
    }
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are called what they are called")]
pub enum Kind {
    From(From),
    Run(Run),
    Cmd(Command),
    Entrypoint(Command),
    Copy(Copy),
    Add(Copy),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Arg(Vec<Arg>),
    Expose(Vec<String>),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    Stopsignal(String),
    Maintainer(String),
    Shell(Vec<String>),
    Healthcheck(Healthcheck),
    Onbuild(Onbuild),
}

/// `FROM [--platform=…] image [AS name]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// An image, a stage, or `scratch`.
    pub image: String,
    /// `--platform`.
    pub platform: Option<String>,
    /// `AS`.
    pub name: Option<String>,
}

/// A command line, or words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// For a shell.
    Shell(String),
    /// As they are.
    Exec(Vec<String>),
}

/// `name=value`, the value with its quotes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// With its quotes, too.
    pub name: String,
    /// As written.
    pub value: String,
    /// Written in the old form, `ENV name the rest`.
    pub legacy: bool,
}

/// `ARG name[=default]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: String,
    /// As written.
    pub default: Option<String>,
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// What is run; with here-documents, the first line of it.
    pub command: Command,
    /// `--mount`, as written.
    pub mounts: Vec<String>,
    /// `--network`.
    pub network: Option<String>,
    /// `--security`.
    pub security: Option<String>,
    /// `--device`, as written.
    pub devices: Vec<String>,
    /// `<<NAME`.
    pub heredocs: Vec<Heredoc>,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Copy {
    /// In order; `<<NAME` stands for the here-document of that name.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
    /// `--from`: a stage, an image, a named context.
    pub from: Option<String>,
    /// `--chown`.
    pub chown: Option<String>,
    /// `--chmod`.
    pub chmod: Option<String>,
    /// `--link`.
    pub link: bool,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`, any number.
    pub exclude: Vec<String>,
    /// `--checksum`.
    pub checksum: Option<String>,
    /// `--keep-git-dir`.
    pub keep_git_dir: bool,
    /// `--unpack`; absent: local archives are.
    pub unpack: Option<bool>,
    /// `<<NAME`.
    pub heredocs: Vec<Heredoc>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word that ends it.
    pub name: String,
    /// Its lines, each with its newline; leading tabs are gone if `chomp`.
    pub content: String,
    /// Whether variables in it are expanded: the word was not quoted.
    pub expand: bool,
    /// `<<-`.
    pub chomp: bool,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `None`: `HEALTHCHECK NONE`.
    pub command: Option<Command>,
    /// Nanoseconds.
    pub interval: Option<i64>,
    /// Nanoseconds.
    pub timeout: Option<i64>,
    /// Nanoseconds.
    pub start_period: Option<i64>,
    /// Nanoseconds.
    pub start_interval: Option<i64>,
    /// Failures in a row.
    pub retries: Option<i64>,
}

impl Default for Command {
    fn default() -> Self {
        Self::Shell(String::new())
    }
}

/// `ONBUILD`: the text of another instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Onbuild {
    /// One line, then the here-documents, if any.
    pub trigger: String,
}

impl Instruction {
    /// What a comment above says of `name`: `# name description`.
    #[must_use]
    pub fn description(&self, name: &str) -> Option<&str> {
        let of_name = |line: &String| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' '));
        self.comments.iter().find(|line| of_name(line)).map(|line| line[name.len()..].trim())
    }
}

impl Kind {
    /// The keyword in capitals.
    #[must_use]
    pub fn keyword(&self) -> &'static str {
        match self {
            Self::From(_) => "FROM",
            Self::Run(_) => "RUN",
            Self::Cmd(_) => "CMD",
            Self::Entrypoint(_) => "ENTRYPOINT",
            Self::Copy(_) => "COPY",
            Self::Add(_) => "ADD",
            Self::Env(_) => "ENV",
            Self::Label(_) => "LABEL",
            Self::Arg(_) => "ARG",
            Self::Expose(_) => "EXPOSE",
            Self::Volume(_) => "VOLUME",
            Self::User(_) => "USER",
            Self::Workdir(_) => "WORKDIR",
            Self::Stopsignal(_) => "STOPSIGNAL",
            Self::Maintainer(_) => "MAINTAINER",
            Self::Shell(_) => "SHELL",
            Self::Healthcheck(_) => "HEALTHCHECK",
            Self::Onbuild(_) => "ONBUILD",
        }
    }
}
