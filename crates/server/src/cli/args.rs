//! What can be said on the command line, and its help.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  jobservice                                      start the service: loopback, port 9443, data in ./jobservice-data
  jobservice -c config.yml                        start it as a file says
  jobservice config show --default > config.yml   a file to begin with: all options, each with a comment
  jobservice submit demo -p image=demo:1 --wait   run a job and see how it ends
  jobservice list --status error                  which jobs failed for good
  jobservice log -f ID                            what a job says while it runs
  jobservice retry ID                             run a failed job again
  jobservice stop --filter name=demo --filter status=pending   end all that wait of a name
  jobservice doctor                               is everything as it should be?

The commands find the service of the same host through its data directory. Another one is named by --url and --secret,
or by the variables JOBSERVICE_URL and CORE_SECRET.

Exit codes: 0 done; 1 the job failed, or the service refused; 2 wrong usage; 3 the job was stopped or cancelled;
4 waited long enough; 5 no answer from the service. `doctor` has its own.";

/// Durable background jobs: the service, and the commands to use it.
///
/// Without a command it starts the service: a REST API, a worker pool and an embedded store in one process.
#[derive(Debug, Parser)]
#[command(name = "jobservice", version, after_long_help = EXAMPLES, after_help = "--help shows examples.")]
#[command(args_conflicts_with_subcommands = false, subcommand_negates_reqs = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) general: General,

    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The command line of a service that starts: what a long-lived process reads without building the commands that it will
/// never carry out, which are a megabyte of code and text.
#[derive(Debug, Parser)]
#[command(name = "jobservice", disable_help_flag = true)]
struct Start {
    #[command(flatten)]
    general: General,
}

impl Cli {
    /// What was said on the command line. Ends the process, with help or with what is wrong, if that asks for it.
    pub(crate) fn read() -> Cli {
        match Start::try_parse() {
            Ok(Start { general }) => Cli { general, command: None },
            Err(_) => Cli::parse(),
        }
    }
}

/// What can be said with any command, and without one.
#[derive(Debug, Args)]
pub(crate) struct General {
    #[command(flatten)]
    pub(crate) serve: ServeArgs,

    /// Where the service keeps its data, and where the commands find its address and secret [default: jobservice-data,
    /// or JOB_SERVICE_DATA_DIR].
    #[arg(long, value_name = "DIRECTORY", global = true)]
    pub(crate) data_dir: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// How the service is started.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The configuration file (YAML). Environment and flags beat what it says.
    #[arg(short, long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,

    /// The port to listen on; 0 lets the system choose one, which the file `endpoint` in the data directory then names.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,

    /// The address to listen on. One that is not loopback needs CORE_SECRET.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) bind: Option<IpAddr>,

    /// How many jobs run at once.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) workers: Option<u32>,
}

/// Where the service is.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// The service's URL [default: that of the data directory].
    #[arg(long, value_name = "URL", env = "JOBSERVICE_URL", global = true)]
    pub(crate) url: Option<String>,

    /// The service's secret [default: that of the data directory]. Others on this host can see flags: prefer the variable.
    #[arg(long, value_name = "SECRET", env = "CORE_SECRET", hide_env_values = true, global = true)]
    pub(crate) secret: Option<String>,

    /// Certificates (PEM) to trust instead of those of this machine, for a service under https that signs its own [default:
    /// the certificate of the service in the data directory].
    #[arg(long, value_name = "FILE", env = "JOBSERVICE_CA_CERT", global = true)]
    pub(crate) ca_cert: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit a job.
    #[command(after_help = "\
Examples:
  jobservice submit demo -p image=demo:1 -p seconds=2     fields, numbers and true/false as such
  jobservice submit demo -p '{\"image\": \"demo:1\"}' --wait  JSON, and wait for the end
  jobservice submit report -p @input.json --after 90s     from a file (@- from standard input), in 90 seconds
  jobservice submit demo -p image=demo:1 --idempotency-key build-7   safe to repeat for a day
  jobservice submit demo -p image=demo:1 --cron '0 3 * * *' --timezone Europe/Berlin --schedule-key nightly")]
    Submit(Box<Submit>),

    /// Show a job.
    Get {
        /// Its id.
        id: String,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },

    /// List jobs: newest first, or in the service's own order within a status.
    List(List),

    /// Show the queues, or pause, resume and limit one.
    Queues {
        #[command(subcommand)]
        what: Option<Queues>,
    },

    /// Submit the jobs of a file: a JSON array, or one JSON object a line. Prints their ids.
    #[command(after_help = "\
Examples:
  jobservice batch jobs.ndjson      one job a line: {\"name\": \"demo\", \"parameters\": {\"image\": \"demo:1\"}}
  generate | jobservice batch -     from standard input")]
    Batch {
        /// The file, or - for standard input.
        file: String,
        /// Print the answer to each job as one line of JSON instead of its id.
        #[arg(long)]
        json: bool,
    },

    /// Show the worker pools and what they run.
    Stats {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },

    /// Show how many jobs there are in each status.
    Counts {
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },

    /// Show what happened in each minute.
    Minutes {
        /// Only of this name.
        #[arg(long)]
        name: Option<String>,
        /// Since when: seconds since 1970, or how long ago, like 90m or 2d. At most 7 days.
        #[arg(long, default_value = "1h")]
        since: String,
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },

    /// Look through the store and its surroundings, also beside a running service. Exit codes: 0 all is well, 1 warnings,
    /// 2 something is broken.
    Doctor {
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },

    /// Write a consistent copy of the store and the job logs to a file, also beside a running service.
    Backup {
        /// The file. It must not exist.
        file: PathBuf,
    },

    /// Put the data of a backup into the data directory. The service must not run.
    Restore {
        /// The file that `backup` wrote.
        file: PathBuf,
        /// Go on although the data directory is not empty: what is in the way is moved aside.
        #[arg(long)]
        force: bool,
    },

    /// Print a job's log.
    Log {
        /// The job's id.
        id: String,
        /// Go on until the job is final.
        #[arg(short, long)]
        follow: bool,
        /// Only about the last so many bytes, from the beginning of a line.
        #[arg(long, value_name = "BYTES")]
        tail: Option<u64>,
    },

    /// What became of a job's hook events; send one again; verify a message that was received.
    Hooks(Hooks),

    /// End jobs for good. One that runs is told, and has 30 s to obey.
    Stop(Which),

    /// End jobs; they may be retried later.
    Cancel(Which),

    /// Run jobs again that are in error or cancelled.
    Retry(Which),

    /// Remove final jobs with all that belongs to them.
    Delete(Which),

    /// Look at schedules, pause and run them.
    #[command(subcommand)]
    Schedules(Schedules),

    /// Check or show the configuration, without starting anything.
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Say all that is wrong with the configuration: file and line, field, remedy. Exits with 1 if anything is.
    Check {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,
    },

    /// Print the values in effect and where each came from, secrets masked.
    Show {
        /// The configuration file.
        #[arg(short, long, value_name = "FILE")]
        config: Option<PathBuf>,

        /// Print the default file instead, with a comment on each option.
        #[arg(long, conflicts_with_all = ["config", "json"])]
        default: bool,

        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },

    /// Print a JSON schema of the configuration file, for editors.
    Schema,
}

#[derive(Debug, Args)]
pub(crate) struct Submit {
    /// Which job.
    pub(crate) name: String,

    /// Its parameters: JSON, @file, @- (standard input), or key=value, repeated.
    #[arg(short, long, value_name = "PARAMETERS")]
    pub(crate) parameters: Vec<String>,

    /// Run it after this long, like 90s, 5m, 2h30m.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) after: Option<Duration>,

    /// Run it again and again: six fields with the seconds first, five without, @daily, @every 90s, ..
    #[arg(long, value_name = "CRON", conflicts_with_all = ["after", "wait", "idempotency_key"])]
    pub(crate) cron: Option<String>,

    /// The time zone of --cron, like Europe/Berlin.
    #[arg(long, value_name = "ZONE", requires = "cron")]
    pub(crate) timezone: Option<String>,

    /// What becomes of a tick of --cron while an earlier execution is not final: allow, skip, queue, replace.
    #[arg(long, value_name = "RULE", requires = "cron")]
    pub(crate) overlap: Option<String>,

    /// What becomes of ticks of --cron that were missed: skip, last, all.
    #[arg(long, value_name = "RULE", requires = "cron")]
    pub(crate) misfire: Option<String>,

    /// Makes --cron safe to repeat: the same key changes the schedule of before.
    #[arg(long, value_name = "KEY", requires = "cron")]
    pub(crate) schedule_key: Option<String>,

    /// Report its status changes to this URL.
    #[arg(long, value_name = "URL")]
    pub(crate) hook: Option<String>,

    /// 0 to 9, higher first.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) priority: Option<u8>,

    /// Refuse it if another with the same name and parameters waits or runs.
    #[arg(long)]
    pub(crate) unique: bool,

    /// How many runs may fail.
    #[arg(long, value_name = "NUMBER")]
    pub(crate) max_fails: Option<u32>,

    /// How long one run may take.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) timeout: Option<Duration>,

    /// A label to find it by; may be repeated.
    #[arg(long, value_name = "TAG")]
    pub(crate) tag: Vec<String>,

    /// Makes it safe to repeat: the same key gives the same job for a day.
    #[arg(long, value_name = "KEY")]
    pub(crate) idempotency_key: Option<String>,

    /// Keep it this long once it is final, like 12h or 30d.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) retention: Option<Duration>,

    /// Wait until it is final, at most this long; progress goes to standard error.
    #[arg(long, value_name = "DURATION", num_args = 0..=1, require_equals = true, default_missing_value = "36500d", value_parser = duration)]
    pub(crate) wait: Option<Duration>,

    /// Print the job as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only jobs of this status: scheduled, pending, running, retrying, error, success, stopped, cancelled.
    #[arg(long)]
    pub(crate) status: Option<String>,

    /// Only jobs of this name.
    #[arg(long)]
    pub(crate) name: Option<String>,

    /// Only jobs with this tag.
    #[arg(long)]
    pub(crate) tag: Option<String>,

    /// Only sub jobs or executions of this job.
    #[arg(long, value_name = "ID")]
    pub(crate) upstream: Option<String>,

    /// Only jobs of this kind: generic, scheduled.
    #[arg(long)]
    pub(crate) kind: Option<String>,

    /// Only jobs submitted since then: seconds since 1970, or how long ago, like 90m or 2d.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,

    /// Only jobs submitted before then.
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<String>,

    /// Only jobs with this text in their id, name, parameters, error or check-in.
    #[arg(long, short = 'q')]
    pub(crate) text: Option<String>,

    /// How many at most.
    #[arg(long, default_value_t = 50, conflicts_with = "all")]
    pub(crate) limit: usize,

    /// All there are.
    #[arg(long)]
    pub(crate) all: bool,

    /// Print one JSON object a line.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Schedules {
    /// List them all.
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },

    /// Show one.
    Show {
        /// Its key, or its id.
        key: String,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },

    /// Let them not fire until they are resumed.
    Pause(Keys),

    /// Let them go on from now.
    Resume(Keys),

    /// Make one execution of each at once, beside their ticks.
    Run(Keys),

    /// End them, with the executions that wait or run, and remove them.
    Delete(Keys),

    /// Show when a cron text would be due.
    Preview {
        /// Six fields with the seconds first, five without, @daily, @every 90s, ..
        cron: String,
        /// The time zone, like Europe/Berlin.
        #[arg(long, value_name = "ZONE")]
        timezone: Option<String>,
        /// How many times, up to 10.
        #[arg(long, value_name = "NUMBER")]
        count: Option<usize>,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// Their keys, or their ids.
    #[arg(required = true, value_name = "KEY")]
    pub(crate) keys: Vec<String>,
}

/// The events of a job's hook.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  jobservice hooks ID                 its events: delivered, waiting with the next try, given up
  jobservice hooks resend ID 3        send the third one again
  jobservice hooks verify < message   whether a message that was received is from the service"
)]
pub(crate) struct Hooks {
    /// The job's id.
    #[arg(required = true)]
    pub(crate) id: Option<String>,

    /// Print them as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(subcommand)]
    pub(crate) action: Option<HookAction>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HookAction {
    /// Send an event again, also one that was delivered.
    Resend {
        /// The job's id.
        id: String,
        /// The number of the event.
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        seq: u32,
    },

    /// Verify the signature of a message that was received. Needs no service.
    Verify(Verify),
}

#[derive(Debug, Args)]
pub(crate) struct Verify {
    /// The secret that the service signs with. Others on this host can see flags: prefer the variable.
    #[arg(long, value_name = "SECRET", env = "JOB_SERVICE_HOOK_SECRET", hide_env_values = true)]
    pub(crate) hook_secret: String,

    /// Do not mind how old the message is.
    #[arg(long)]
    pub(crate) any_age: bool,

    /// The message as it came: header lines, an empty line, the body [default: standard input].
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct Which {
    /// Their ids.
    #[arg(required_unless_present = "filter", conflicts_with = "filter", value_name = "ID")]
    pub(crate) ids: Vec<String>,

    /// All jobs with this: status, name, tag, upstream, kind, since, until or q, as in `list`; repeated to narrow it.
    /// `all` means every job.
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) filter: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Queues {
    /// Show all of them.
    List {
        /// Print one JSON object a line.
        #[arg(long)]
        json: bool,
    },
    /// Start no more jobs of a name; those that run go on.
    Pause {
        /// The name of the jobs.
        name: String,
    },
    /// Start them again.
    Resume {
        /// The name of the jobs.
        name: String,
    },
    /// Set how many jobs of a name may run at once over all nodes, and their share of the workers.
    Set {
        /// The name of the jobs.
        name: String,
        /// How many may run at once, or `code` for what their code says.
        #[arg(long, value_name = "NUMBER", value_parser = number_or_code)]
        max_concurrency: Option<OrCode>,
        /// 1 to 10000, or `code` for what their code says.
        #[arg(long, value_name = "NUMBER", value_parser = number_or_code)]
        weight: Option<OrCode>,
    },
}

/// A number, or none for what the code says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OrCode(pub(crate) Option<u32>);

fn number_or_code(text: &str) -> Result<OrCode, String> {
    match text {
        "code" => Ok(OrCode(None)),
        text => text.parse().map(|number| OrCode(Some(number))).map_err(|_| "give a number, or code".to_owned()),
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    crate::duration::parse(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        Start::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_after_the_command() {
        for line in [["x", "--data-dir", "d", "get", "id"], ["x", "get", "id", "--data-dir", "d"]] {
            assert_eq!(Cli::try_parse_from(line).unwrap().general.data_dir.unwrap(), PathBuf::from("d"));
        }
    }

    #[test]
    fn wait_takes_its_time_only_behind_an_equals_sign() {
        let wait = |line: &[&str]| match Cli::try_parse_from(line).unwrap().command {
            Some(Command::Submit(submit)) => (submit.wait.map(|wait| wait.as_secs()), submit.name),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(&["x", "submit", "--wait", "demo"]), (Some(36_500 * 86_400), "demo".into()));
        assert_eq!(wait(&["x", "submit", "demo", "--wait=90s"]), (Some(90), "demo".into()));
        assert_eq!(wait(&["x", "submit", "demo"]), (None, "demo".into()));
    }
}
