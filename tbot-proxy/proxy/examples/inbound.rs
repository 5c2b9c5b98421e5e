//! `proxy-inbound` without an issuer: identity and trust from PEM files, routes from the command line.
//!
//! The data path is the product's own ([`ProxyService`]); `loadtest/compare` measures it beside other proxies.
//! Metrics are recorded as in the agent; records are dropped and nothing is logged, as the others are set up there.
//!
//! ```text
//! inbound --cert svid.pem --key svid_key.pem --ca bundle.pem --allow spiffe://td/client \
//!         --route 127.0.0.1:8443=127.0.0.1:8080 [--route …] [--workers 2] [--resumption off]
//! ```

use std::{error::Error, fs, sync::Arc, time::Duration};

use identity::{IdentitySource, SpiffeId, TrustBundle, TrustBundleSet, X509Svid};
use metrics_exporter_prometheus::PrometheusBuilder;
use policy::{PeerPolicy, PeerRule};
use proxy::{
    ConnectionRecord, Direction, Limits, OnExpiry, ProxyService, RecordSink, ServiceConfig,
};
use tokio::{
    runtime::Builder,
    signal::unix::{SignalKind, signal},
};

/// Options as typed: a flat list of `--name value`.
struct Options(Vec<(String, String)>);

impl Options {
    fn typed() -> Result<Self, Box<dyn Error>> {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let pairs = words.chunks(2).map(|pair| match pair {
            [name, value] => Ok((name.clone(), value.clone())),
            rest => Err(format!("{rest:?}: an option and its value expected")),
        });
        Ok(Self(pairs.collect::<Result<_, _>>()?))
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = move |(typed, value): &'a (String, String)| (typed == name).then_some(&**value);
        self.0.iter().filter_map(named)
    }

    fn one(&self, name: &str) -> Result<&str, String> {
        self.0
            .iter()
            .find_map(|(typed, value)| (typed == name).then_some(&**value))
            .ok_or_else(|| format!("{name} is missing"))
    }
}

struct NoRecords;

impl RecordSink for NoRecords {
    fn record(&self, _record: &ConnectionRecord) {}
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::typed()?;
    PrometheusBuilder::new().install_recorder()?;
    let read = |name| {
        options
            .one(name)
            .map(fs::read)
            .map_err(Box::<dyn Error>::from)
    };
    let svid = X509Svid::from_pem(&read("--cert")??, &read("--key")??)?;
    let bundle = TrustBundle::from_pem(svid.id().trust_domain(), &read("--ca")??)?;
    let source = IdentitySource::with(svid, TrustBundleSet::new([bundle]));
    let allow = options
        .all("--allow")
        .map(SpiffeId::parse)
        .map(|id| id.map(PeerRule::Id));
    let peers = PeerPolicy::new(Vec::new(), allow.collect::<Result<_, _>>()?);

    let workers = options.one("--workers").unwrap_or("2").parse()?;
    let runtime = Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_all()
        .build()?;
    let mut services = Vec::new();
    for route in options.all("--route") {
        let (listen, connect) = route.split_once('=').ok_or("--route LISTEN=CONNECT")?;
        let config = ServiceConfig {
            name: route.to_owned(),
            direction: Direction::Inbound,
            listen: listen.parse()?,
            connect: connect.parse()?,
            peers: peers.clone(),
            limits: Limits::default(),
            resumption: options.one("--resumption").unwrap_or("on") == "on",
            tls12: false,
            on_expiry: OnExpiry::Close,
        };
        services.push(ProxyService::start(
            config,
            source.clone(),
            Arc::new(NoRecords),
            runtime.handle(),
        )?);
    }
    for service in &services {
        println!("listening on {}", service.local_addr());
    }
    runtime.block_on(async {
        signal(SignalKind::terminate())?.recv().await;
        Ok::<_, std::io::Error>(())
    })?;
    for service in services {
        runtime.block_on(service.drain(Duration::from_secs(1)));
    }
    Ok(())
}
