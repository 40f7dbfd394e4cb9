//! Starts the parts of the service in order, and stops them in the reverse order.
//!
//! Start: data directory, secret, listener, store (the leases of a dead predecessor are reaped), job logs, worker pool,
//! and last the endpoint file, which says that all of it is there. Stop: not ready any more, the pool ends its jobs while
//! the API still answers, then connections, then the store.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jobservice::logger::{FileLogs, JobLogs, JobLogsBuilder, StdOutput, SweepRule};
use jobservice::{Registry, Service, SubmitError};
use jobservice_core::StoreError;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::backends::Backends;
use crate::config::{Config, ConfigError, Logger, LoggerKind};
use crate::http::{App, Certificate, Degraded, Front, Secrets, serve};
use crate::jobs::{Demo, Noop};
use crate::properties::CoreProperties;
use crate::storage::Storage;
use crate::{data_dir, telemetry};

/// How long requests under way have to end at shutdown, after the pool has ended. Together with the pool's 28 s below the
/// 30 s after which container runtimes kill.
const HTTP_GRACE: Duration = Duration::from_secs(1);

/// How long answers under way have once the store has closed itself: they are errors, and quick.
const FAILED_GRACE: Duration = Duration::from_secs(1);

/// Runs the service until a signal ends it. An error says why it could not start, or why it could not go on.
pub(crate) async fn run(registry: Registry, backends: &Backends, config: Config) -> Result<()> {
    let mut signals = Signals::listen()?;
    let hangup = signal(SignalKind::hangup()).context("cannot listen for signals")?;
    data_dir::create(&config.data_dir)?;
    let log = telemetry::start(&config.loggers, backends)?;
    for warning in &config.warnings {
        tracing::warn!("{warning}");
    }
    raise_file_limit();
    let secrets = secrets(&config)?;
    let certificate = config.https.as_ref().map(Certificate::load).transpose().context("cannot serve https")?;
    let acceptor = certificate.as_ref().map(Certificate::acceptor).transpose().context("cannot serve https")?;
    // Before the store: what can be refused is refused before anything runs.
    let listener = TcpListener::bind(SocketAddr::new(config.bind, config.port)).await.with_context(|| {
        format!("cannot listen on {} port {}; choose another with --port", config.bind, config.port)
    })?;
    let url = url(listener.local_addr().context("the listener has no address")?, certificate.is_some());

    let storage = Storage::open(&config).await?;
    let (store, clock) = (storage.store(), storage.clock());
    let logs = job_logs(&config, backends, &storage)?.build(Arc::clone(&store), Arc::clone(&clock))?;
    let mut builder = Service::builder();
    for (property, value) in &config.context {
        builder = builder.property(property, value);
    }
    if let (Some(server), Some(secret)) = (&config.core_server, secrets.first()) {
        builder = builder.fallback_properties(CoreProperties::start(server, secret).await?);
    }
    let service = builder
        .store(store)
        .clock(clock)
        .registry(with_built_in(registry, &config))
        .workers(config.workers as usize)
        .grace(config.grace)
        .shutdown_grace(config.shutdown_grace)
        .retention(config.retention.clone())
        .pool_name(pool_name())
        .logs(logs)
        .hooks(config.hooks.clone())
        .start()
        .await
        .context("cannot start the worker pool")?;
    if let Err(error) = put_schedules(&service, &config).await {
        service.shutdown().await;
        return Err(error);
    }
    let service = Arc::new(service);

    let (ending, closing) = (CancellationToken::new(), CancellationToken::new());
    let degraded = degraded(storage.clone(), Arc::clone(&service));
    let (effective, warnings) = (config.effective.clone(), config.warnings.clone());
    let shown = Box::new(move || effective.json(&warnings).to_string());
    let secrets = Secrets::of_admins(secrets.iter().map(String::as_str));
    let pool = Arc::clone(&service);
    let stuck = Box::new(move || pool.stats().map_or(0, |stats| stats.stuck));
    let app = App::new(service.controller().clone(), secrets, degraded, stuck, ending.clone(), closing.clone(), shown);
    if let Some(certificate) = &certificate {
        data_dir::write_certificate(&config.data_dir, &certificate.der())?;
    }
    data_dir::write_endpoint(&config.data_dir, &url)?;
    tracing::info!(url, workers = config.workers, "serving {url}, jobs run on {} workers", config.workers);
    let mut connections = tokio::spawn(serve(listener, acceptor, Front::new(app), closing.clone()));
    tokio::spawn(on_hangup(hangup, certificate, config.data_dir.clone()));

    let ended: Result<Duration> = tokio::select! {
        name = signals.next() => {
            tracing::info!("{name}: ending; running jobs have a while to end, a second signal ends at once");
            ending.cancel();
            tokio::select! {
                () = service.shutdown() => Ok(HTTP_GRACE),
                name = signals.next() => {
                    tracing::warn!("{name} again: ended at once; the running jobs are started again by the next process");
                    data_dir::remove_endpoint(&config.data_dir);
                    drop(log);
                    std::process::exit(1);
                }
            }
        }
        // Nothing can be written any more, so nothing can be handed over: the next process will take it back.
        () = storage.poisoned() => Err(StoreError::Poisoned.into()),
        reason = service.failed() => Err(anyhow::anyhow!("{reason}")),
        ended = &mut connections => Err(anyhow::anyhow!("the listener ended unexpectedly: {ended:?}")),
    };
    data_dir::remove_endpoint(&config.data_dir);
    closing.cancel();
    let grace = *ended.as_ref().unwrap_or(&FAILED_GRACE);
    if !connections.is_finished() && tokio::time::timeout(grace, connections).await.is_err() {
        tracing::warn!("cut off connections that did not end within {} s", grace.as_secs());
    }
    ended?;
    tracing::info!("ended");
    Ok(())
}

/// Puts the schedules that the configuration declares. All that is wrong with them is said at once.
async fn put_schedules(service: &Service, config: &Config) -> Result<()> {
    let mut problems = Vec::new();
    for declared in &config.schedules {
        let stored = service.controller().schedule(&declared.key).await?;
        if let Some(policy) = stored.filter(|policy| policy.state.ended.is_some()) {
            // Somebody stopped it, and a restart is not how they meant to begin it again.
            let key = &declared.key;
            tracing::warn!(
                schedule.key = key,
                "schedule {key} was ended and stays so: retry {} begins it again",
                policy.id
            );
            continue;
        }
        match service.controller().submit(declared.submission.clone()).await {
            Ok(submitted) => {
                let outcome = submitted.policy.map_or("put", |put| put.put.as_str());
                tracing::info!(schedule.key = declared.key, "schedule {}: {outcome}", declared.key);
                for warning in submitted.warnings {
                    tracing::warn!(schedule.key = declared.key, "schedule {}: {warning}", declared.key);
                }
            }
            Err(SubmitError::Store(error)) => {
                return Err(error).context("cannot put the schedules of the configuration");
            }
            Err(error) => problems.extend(declared.problems(&error)),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError(problems).into()) }
}

/// The jobs of the user and those that come with the service.
fn with_built_in(mut registry: Registry, config: &Config) -> Registry {
    if config.has_demo && registry.get(<Demo as jobservice::Job>::NAME).is_none() {
        registry = registry.register::<Demo>();
    }
    if config.has_noop && registry.get(<Noop as jobservice::Job>::NAME).is_none() {
        registry = registry.register::<Noop>();
    }
    registry
}

fn job_logs(config: &Config, backends: &Backends, storage: &Storage) -> Result<JobLogsBuilder> {
    let mut logs = JobLogs::builder();
    for Logger { kind, level, kept, kept_bytes_max, .. } in &config.job_loggers {
        logs = match kind {
            LoggerKind::StdOutput { to_stderr: true } => logs.backend(Arc::new(StdOutput::stderr()?)),
            LoggerKind::StdOutput { to_stderr: false } => logs.backend(Arc::new(StdOutput::stdout()?)),
            LoggerKind::File(file) => logs.backend(Arc::new(FileLogs::open(&file.base_dir)?)),
            LoggerKind::Store => logs.backend(storage.logs(config)?),
            LoggerKind::Own { name, settings } => logs.backend(backends.job_log(name, settings)?),
        };
        logs = logs.level(*level).sweep(SweepRule { older_than: *kept, bytes_max: *kept_bytes_max });
    }
    Ok(logs)
}

/// Says what keeps the service from doing its work as well as it could, if anything does.
fn degraded(storage: Storage, service: Arc<Service>) -> Degraded {
    Box::new(move || {
        storage.degraded().or_else(|| {
            let stuck = service.stats().is_some_and(|stats| !stats.is_healthy());
            stuck.then(|| "half of the workers or more are held by jobs that do not end".to_owned())
        })
    })
}

/// The secrets that open the API: those configured, or the one kept in the data directory.
fn secrets(config: &Config) -> Result<Vec<String>> {
    if let Some(secrets) = &config.secrets {
        return Ok(secrets.clone());
    }
    let (secret, made) = data_dir::secret(&config.data_dir)?;
    if made {
        let path = data_dir::secret_path(&config.data_dir);
        // Not through the log, which is kept: shown once, to who started the service.
        eprintln!("secret: {secret}\n(made now, kept in {}; set CORE_SECRET for one of your own)", path.display());
    }
    Ok(vec![secret])
}

/// Where the service is reached from this host.
fn url(at: SocketAddr, is_https: bool) -> String {
    let ip = match at.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let protocol = if is_https { "https" } else { "http" };
    format!("{protocol}://{}", SocketAddr::new(ip, at.port()))
}

/// The pool is called after the machine, so that statistics of several say which is which.
fn pool_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name: String =
        name.trim().chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect();
    if name.is_empty() { "pool".to_owned() } else { name }
}

/// Each connection needs a file descriptor, and the usual soft limit is as low as our number of connections.
fn raise_file_limit() {
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard.min(65_536), hard));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

/// SIGHUP means "read it again", and what can be read again is the certificate; without one it only must not end the
/// process.
async fn on_hangup(mut hangup: Signal, certificate: Option<Arc<Certificate>>, data_dir: PathBuf) {
    let Some(certificate) = certificate else {
        while hangup.recv().await.is_some() {
            tracing::info!("SIGHUP: there is nothing to read again; the configuration is read at the start only");
        }
        return;
    };
    let renewed = move |certificate: &Certificate| {
        if let Err(error) = data_dir::write_certificate(&data_dir, &certificate.der()) {
            tracing::warn!("the command line of this host will not know the new certificate: {error:#}");
        }
    };
    certificate.keep_fresh(hangup, renewed).await;
}

/// The signals that end the service.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Signals> {
        let listen = |kind| signal(kind).context("cannot listen for signals");
        Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    /// The next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
