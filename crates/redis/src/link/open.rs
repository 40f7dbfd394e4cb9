//! Opens connections to a [`Target`], whatever its form.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection, PubSub};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{Route, SingleNodeRoutingInfo, SlotAddr};
use redis::sentinel::{SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, ConnectionInfo, ErrorKind, IntoConnectionInfo, Pipeline,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates, TlsMode, Value,
};

use super::target::{Host, Place, Target};

/// Opens connections.
#[derive(Clone)]
pub(crate) struct Opener {
    pub(crate) target: Target,
    /// The authorities that sign the server's certificate, as PEM; none for those that the system trusts.
    pub(crate) authorities: Option<Vec<u8>>,
    /// How long a connection may take to be made, and to greet.
    pub(crate) connect_timeout: Duration,
    /// How long a node of a cluster may take to answer before it is taken for dead.
    pub(crate) response_timeout: Duration,
}

/// A connection that many share.
#[derive(Clone)]
pub(crate) enum Connection {
    One(MultiplexedConnection),
    Cluster(Box<ClusterConnection>),
}

impl Connection {
    /// Sends one command.
    pub(crate) async fn send(&mut self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Connection::One(connection) => connection.req_packed_command(command).await,
            Connection::Cluster(connection) => connection.req_packed_command(command).await,
        }?
        .extract_error()
    }

    /// Sends several at once. An error among the answers is left in its place.
    pub(crate) async fn pipe(&mut self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let count = commands.len();
        match self {
            Connection::One(connection) => connection.req_packed_commands(commands, 0, count).await,
            Connection::Cluster(connection) => connection.req_packed_commands(commands, 0, count).await,
        }
    }

    /// Sends several at once to where a key is, though not all of them have one.
    pub(crate) async fn pipe_to(&mut self, key: &[u8], commands: &Pipeline) -> RedisResult<Vec<Value>> {
        match self {
            Connection::One(_) => self.pipe(commands).await,
            Connection::Cluster(connection) => {
                let node = SingleNodeRoutingInfo::SpecificNode(Route::with_key(key, SlotAddr::Master));
                connection.route_pipeline(commands.clone(), 0, commands.len(), node).await
            }
        }
    }

    /// Whether an error means that this connection is of no more use.
    pub(crate) fn is_lost(&self, error: &RedisError) -> bool {
        use redis::ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
        match self {
            Connection::One(_) => {
                let is_moved = matches!(error.kind(), ErrorKind::Server(ReadOnly | MasterDown | BusyLoading));
                error.is_unrecoverable_error() || error.is_io_error() || is_moved || error.code() == Some("NOAUTH")
            }
            // It looks after the connections to its nodes itself, unless it has lost them all.
            Connection::Cluster(_) => {
                error.kind() == ErrorKind::ClusterConnectionNotFound || error.is_connection_dropped()
            }
        }
    }
}

impl Opener {
    /// Opens a connection for commands. Answers with what it leads to, too, for people.
    pub(crate) async fn open(&self) -> RedisResult<(Connection, String)> {
        // Sentinels are asked one after another.
        let limit = match self.target.place {
            Place::Sentinel { .. } | Place::Cluster { .. } => self.connect_timeout * 2,
            Place::Host(_) | Place::Socket(_) => self.connect_timeout,
        };
        within(limit, self.open_slowly()).await
    }

    async fn open_slowly(&self) -> RedisResult<(Connection, String)> {
        if let Place::Cluster { hosts } = &self.target.place {
            let nodes: Vec<ConnectionInfo> = hosts.iter().map(|host| self.info(host)).collect::<RedisResult<_>>()?;
            let mut builder = ClusterClient::builder(nodes)
                .connection_timeout(self.connect_timeout)
                .response_timeout(self.response_timeout)
                .overall_response_timeout(None)
                .retries(3);
            if self.target.tls {
                builder = builder.tls(TlsMode::Secure).certs(self.certificates());
            }
            let connection = builder.build()?.get_async_connection().await?;
            return Ok((Connection::Cluster(Box::new(connection)), self.target.to_string()));
        }
        let client = self.client().await?;
        let address = client.get_connection_info().addr().to_string();
        // Time-outs are counted by who calls: they differ by use.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.connect_timeout))
            .set_response_timeout(None)
            .set_pipeline_buffer_size(1024);
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // A server that still loads its data greets, but answers nothing.
        connection.send_packed_command(&redis::cmd("PING")).await?.extract_error()?;
        Ok((Connection::One(connection), address))
    }

    /// Opens a connection for messages.
    pub(crate) async fn subscribe(&self, channels: &[String]) -> RedisResult<PubSub> {
        let subscribe = async {
            let mut messages = self.client().await?.get_async_pubsub().await?;
            messages.subscribe(channels).await?;
            Ok(messages)
        };
        within(self.connect_timeout * 2, subscribe).await
    }

    /// The server; of a cluster any node, as messages reach them all.
    async fn client(&self) -> RedisResult<Client> {
        match &self.target.place {
            Place::Host(host) => self.client_of(self.info(host)?),
            Place::Socket(path) => {
                self.client_of(self.settings(ConnectionAddr::Unix(path.clone()).into_connection_info()?))
            }
            Place::Sentinel { hosts, master } => {
                let mut builder = SentinelClientBuilder::new(
                    hosts.iter().map(|host| self.address(host)),
                    master,
                    SentinelServerType::Master,
                )?
                .set_client_to_redis_db(self.target.database);
                if let Some(user) = &self.target.user {
                    builder = builder.set_client_to_redis_username(user);
                }
                if let Some(password) = &self.target.password {
                    builder = builder.set_client_to_redis_password(password);
                }
                if let Some(user) = &self.target.sentinel_user {
                    builder = builder.set_client_to_sentinel_username(user);
                }
                if let Some(password) = &self.target.sentinel_password {
                    builder = builder.set_client_to_sentinel_password(password);
                }
                if self.target.tls {
                    builder = builder
                        .set_client_to_redis_tls_mode(TlsMode::Secure)
                        .set_client_to_redis_certificates(self.certificates())
                        .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                        .set_client_to_sentinel_certificates(self.certificates());
                }
                builder.build()?.async_get_client().await
            }
            Place::Cluster { hosts } => {
                let mut last = None;
                for host in hosts {
                    let client = self.client_of(self.info(host)?)?;
                    match within(self.connect_timeout, client.get_multiplexed_async_connection()).await {
                        Ok(_) => return Ok(client),
                        Err(error) => last = Some(error),
                    }
                }
                Err(last.unwrap_or_else(timed_out))
            }
        }
    }

    fn client_of(&self, info: ConnectionInfo) -> RedisResult<Client> {
        if self.target.tls { Client::build_with_tls(info, self.certificates()) } else { Client::open(info) }
    }

    fn info(&self, host: &Host) -> RedisResult<ConnectionInfo> {
        Ok(self.settings(self.address(host).into_connection_info()?))
    }

    fn settings(&self, info: ConnectionInfo) -> ConnectionInfo {
        let mut settings = RedisConnectionInfo::default().set_db(self.target.database);
        if let Some(user) = &self.target.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.target.password {
            settings = settings.set_password(password);
        }
        // Nobody reads it, and a restricted user may not say it.
        let settings = settings.set_skip_set_lib_name();
        let tcp = redis::io::tcp::TcpSettings::default().set_nodelay(true);
        info.set_redis_settings(settings).set_tcp_settings(tcp)
    }

    fn address(&self, (host, port): &Host) -> ConnectionAddr {
        let (host, port) = (host.clone(), *port);
        if self.target.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates { client_tls: None, root_cert: self.authorities.clone() }
    }
}

/// The error of what took too long.
pub(crate) fn timed_out() -> RedisError {
    RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut))
}

/// Waits no longer than `limit`.
pub(crate) async fn within<T>(limit: Duration, future: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    tokio::time::timeout(limit, future).await.unwrap_or_else(|_| Err(timed_out()))
}
