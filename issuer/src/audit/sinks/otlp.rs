//! Records as OTLP log records, over gRPC.
//!
//! One export call a page, and the next only after its answer: so records arrive in
//! order, and what was not acknowledged is sent again. The body of a log record is the
//! JSON line, so that what a collector keeps can be verified as an export can.

use std::{io, path::Path, sync::Arc, time::Duration};

use hyper_util::rt::TokioIo;
use identity::TrustDomain;
use opentelemetry_proto::tonic::{
    collector::logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs, SeverityNumber},
    resource::v1::Resource,
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore},
};
use tonic::transport::{Channel, Endpoint, Uri};

use super::{page::Page, settings::OtlpSettings};
use crate::audit::{
    codes,
    lines::{Line, Recorded},
};

/// How long a connection, and the answer to a call, may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct OtlpSink {
    settings: OtlpSettings,
    trust_domain: String,
    client: Option<LogsServiceClient<Channel>>,
}

impl OtlpSink {
    /// Of the trail of this trust domain.
    pub(super) fn new(settings: OtlpSettings, trust_domain: &TrustDomain) -> Self {
        Self {
            settings,
            trust_domain: trust_domain.to_string(),
            client: None,
        }
    }

    pub(super) async fn deliver(&mut self, page: &Page) -> Result<(), String> {
        let mut client = match self.client.take() {
            Some(client) => client,
            None => LogsServiceClient::new(self.connect().await?),
        };
        let answer = client
            .export(self.request(page))
            .await
            .map_err(|status| self.told(status.message()))?
            .into_inner();
        self.client = Some(client);
        if let Some(partial) = answer.partial_success
            && partial.rejected_log_records > 0
        {
            let rejected = u64::try_from(partial.rejected_log_records).unwrap_or(0);
            metrics::counter!("issuer_audit_sink_rejected_total", "sink" => "otlp")
                .increment(rejected);
            // The protocol forbids to send them again.
            tracing::error!(
                rejected,
                why = partial.error_message,
                "the OpenTelemetry collector rejected audit records for good"
            );
        }
        Ok(())
    }

    async fn connect(&self) -> Result<Channel, String> {
        let endpoint = Endpoint::from_shared(self.settings.endpoint.clone())
            .map_err(|error| self.told(&error.to_string()))?
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT);
        let connected = match &self.settings.ca_file {
            None => endpoint.connect().await,
            Some(file) => {
                let tls = client_tls(file).map_err(|error| {
                    format!(
                        "the certificates in {} are of no use ({error})",
                        file.display()
                    )
                })?;
                endpoint.connect_with_connector(connector(tls)).await
            }
        };
        connected.map_err(|error| {
            let mut cause: &dyn std::error::Error = &error;
            while let Some(source) = cause.source() {
                cause = source;
            }
            self.told(&cause.to_string())
        })
    }

    fn request(&self, page: &Page) -> ExportLogsServiceRequest {
        let resource = Resource {
            attributes: vec![
                text("service.name", "issuer"),
                text("service.version", env!("CARGO_PKG_VERSION")),
                text("tbot.trust_domain", &self.trust_domain),
            ],
            ..Resource::default()
        };
        let scope = InstrumentationScope {
            name: "tbot.audit".to_owned(),
            version: "1".to_owned(),
            ..InstrumentationScope::default()
        };
        ExportLogsServiceRequest {
            resource_logs: vec![ResourceLogs {
                resource: Some(resource),
                scope_logs: vec![ScopeLogs {
                    scope: Some(scope),
                    log_records: page.lines.iter().map(log_record).collect(),
                    ..ScopeLogs::default()
                }],
                ..ResourceLogs::default()
            }],
        }
    }

    fn told(&self, why: &str) -> String {
        format!(
            "the collector {} takes nothing ({why})",
            self.settings.endpoint
        )
    }
}

fn client_tls(ca_file: &Path) -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(ca_file).map_err(|error| error.to_string())?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let mut config = ClientConfig::builder_with_provider(identity::tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Speaks TLS itself: the `https` of the address is known to us, not to the channel.
fn connector(
    tls: TlsConnector,
) -> impl tower::Service<
    Uri,
    Response = TokioIo<tokio_rustls::client::TlsStream<TcpStream>>,
    Error = io::Error,
    Future: Send,
> + Send {
    tower::service_fn(move |uri: Uri| {
        let tls = tls.clone();
        async move {
            let host = uri.host().unwrap_or_default().to_owned();
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            let name = ServerName::try_from(bare.to_owned()).map_err(io::Error::other)?;
            let stream = TcpStream::connect((bare, uri.port_u16().unwrap_or(443))).await?;
            stream.set_nodelay(true)?;
            Ok(TokioIo::new(tls.connect(name, stream).await?))
        }
    })
}

fn log_record((line, json): &(Line, String)) -> LogRecord {
    let mut told = LogRecord {
        severity_number: SeverityNumber::Info.into(),
        severity_text: "INFO".to_owned(),
        body: Some(AnyValue {
            value: Some(Value::StringValue(json.clone())),
        }),
        ..LogRecord::default()
    };
    match line {
        Line::Record(record) => of_record(&mut told, record),
        Line::Checkpoint(checkpoint) => {
            told.event_name = "audit.checkpoint".to_owned();
            told.time_unix_nano = nanoseconds(checkpoint.head.time_ms);
            told.attributes = vec![number("audit.sequence", checkpoint.head.sequence)];
        }
        Line::NotDurable(given) => {
            told.event_name.clone_from(&given.event);
            told.time_unix_nano = nanoseconds(given.time_ms);
            told.severity_number = SeverityNumber::Error.into();
            told.severity_text = "ERROR".to_owned();
            told.attributes = vec![text("audit.not_durable", "true")];
        }
        Line::Key(_) => told.event_name = "audit.key".to_owned(),
        Line::Export(_) => told.event_name = "audit.export".to_owned(),
    }
    told
}

fn of_record(told: &mut LogRecord, record: &Recorded) {
    told.event_name.clone_from(&record.event);
    told.time_unix_nano = nanoseconds(record.time_ms);
    if !record.success {
        told.severity_number = SeverityNumber::Warn.into();
        told.severity_text = "WARN".to_owned();
    }
    told.attributes = vec![
        number("audit.sequence", record.sequence),
        KeyValue {
            value: Some(AnyValue {
                value: Some(Value::BoolValue(record.success)),
            }),
            ..text("audit.success", "")
        },
    ];
    if let Some(code) = codes::code(&record.event, record.success) {
        told.attributes.push(text("audit.code", &code));
    }
    let fields: serde_json::Value = serde_json::from_str(&record.fields).unwrap_or_default();
    for field in [
        "bot_name",
        "bot_instance_id",
        "spiffe_id",
        "serial_number",
        "jti",
        "reason",
        "user",
    ] {
        if let Some(value) = fields.get(field).and_then(serde_json::Value::as_str) {
            told.attributes.push(text(&format!("audit.{field}"), value));
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn number(key: &str, value: u64) -> KeyValue {
    KeyValue {
        value: Some(AnyValue {
            value: Some(Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX))),
        }),
        ..text(key, "")
    }
}

fn nanoseconds(time_ms: i64) -> u64 {
    u64::try_from(time_ms)
        .unwrap_or(0)
        .saturating_mul(1_000_000)
}
