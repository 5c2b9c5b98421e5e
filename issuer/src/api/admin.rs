//! `tbot.admin.v1.AdminService` on the admin socket.

mod resources;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proto::admin::v1::{self as pb, admin_service_server::AdminService};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{admin_socket::Operator, audit, authorities, timestamp};
use crate::{
    access::{
        self,
        changes::{self, Attempt, ChangeError},
    },
    catalog::Catalog,
    resources::{Kind, ResourceName, Spec, TOKEN_TTL_CAP, TokenSecret, wire},
    service::Issuer,
    store::{StoreError, instances, instances::BotInstance},
};

/// Life of a token when none is named.
const DEFAULT_TOKEN_TTL: Duration = Duration::from_secs(30 * 60);

/// Administration.
#[derive(Debug)]
pub struct AdminApi {
    /// Store and authority.
    pub issuer: Arc<Issuer>,
    /// `host:port` that agents are to use.
    pub grpc_address: String,
    /// Where probes and scrapers are answered.
    pub diagnostics_address: SocketAddr,
    /// Turns true when the issuer drains.
    pub draining: watch::Receiver<bool>,
}

fn operator<T>(request: &Request<T>) -> String {
    match request.extensions().get::<Operator>() {
        Some(operator) => format!("uid:{}", operator.uid),
        None => "unknown".to_owned(),
    }
}

fn refused(error: ChangeError) -> Status {
    match &error {
        ChangeError::Invalid(_) => Status::invalid_argument(error.to_string()),
        ChangeError::Missing(_) | ChangeError::InUse(_) => {
            Status::failed_precondition(error.to_string())
        }
        ChangeError::NotFound { .. } | ChangeError::NotLocked(_) => {
            Status::not_found(error.to_string())
        }
        ChangeError::Revision { .. } => Status::aborted(error.to_string()),
        ChangeError::Store(store) => unavailable(store.clone()),
    }
}

/// An operator may see what ails the store.
pub(super) fn unavailable(error: StoreError) -> Status {
    tracing::error!(%error, "an operator's request failed");
    Status::unavailable(error.to_string())
}

fn invalid(error: impl std::fmt::Display) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Name, roles and life of the token of a bot that is to be added; what is wrong with it.
fn new_bot(
    request: &pb::AddBotRequest,
) -> Result<(ResourceName, Vec<ResourceName>, Duration), String> {
    let parse = |text: &String| ResourceName::parse(text).map_err(|error| error.to_string());
    let name = parse(&request.name)?;
    let roles = request.roles.iter().map(parse).collect::<Result<_, _>>()?;
    let ttl = match &request.token_ttl {
        None => DEFAULT_TOKEN_TTL,
        Some(ttl) => wire::whole_seconds(ttl, TOKEN_TTL_CAP).ok_or_else(|| {
            format!(
                "the token's life {} s {} ns is not accepted: whole seconds, at least 1s, at most 24h",
                ttl.seconds, ttl.nanos
            )
        })?,
    };
    Ok((name, roles, ttl))
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    async fn get_status(
        &self,
        _request: Request<pb::GetStatusRequest>,
    ) -> Result<Response<pb::GetStatusResponse>, Status> {
        let keyring = self.issuer.keyring();
        Ok(Response::new(pb::GetStatusResponse {
            trust_domain: self.issuer.trust_domain().to_string(),
            ca_pin: keyring.pin(),
            ca_not_after: Some(timestamp(keyring.x509().not_after())),
            grpc_address: self.grpc_address.clone(),
            spiffe_bundle_json: keyring.bundle().to_spiffe_json(),
            ca_pem: keyring.bundle().to_pem(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            diagnostics_address: self.diagnostics_address.to_string(),
        }))
    }

    async fn apply_resources(
        &self,
        request: Request<pb::ApplyResourcesRequest>,
    ) -> Result<Response<pb::ApplyResourcesResponse>, Status> {
        self.apply(request).await
    }

    async fn get_resources(
        &self,
        request: Request<pb::GetResourcesRequest>,
    ) -> Result<Response<pb::GetResourcesResponse>, Status> {
        self.get(request.into_inner()).await
    }

    async fn delete_resource(
        &self,
        request: Request<pb::DeleteResourceRequest>,
    ) -> Result<Response<pb::DeleteResourceResponse>, Status> {
        self.delete(request).await
    }

    async fn add_bot(
        &self,
        request: Request<pb::AddBotRequest>,
    ) -> Result<Response<pb::AddBotResponse>, Status> {
        let operator = operator(&request);
        let request = request.into_inner();
        let now = SystemTime::now();
        let told: String = request.name.chars().take(128).collect();
        let attempt = Attempt::Apply(vec![format!("bot/{told}")]);
        let (name, roles, ttl) = match new_bot(&request) {
            Ok(wanted) => wanted,
            Err(why) => {
                let error = ChangeError::Invalid(why);
                return Err(self.refuse(attempt, error, operator, now).await);
            }
        };
        let secret = TokenSecret::generate()
            .map_err(|_| Status::internal("the system gives no randomness"))?;
        let token = secret.expose().to_owned();
        let user = operator.clone();
        let write = self.issuer.store.write(move |tx| {
            let (name, roles, secret) = (name.clone(), roles.clone(), secret.clone());
            let user = user.clone();
            Box::pin(
                async move { changes::add_bot(tx, name, roles, secret, ttl, &user, now).await },
            )
        });
        let (bot, expires) = match write.await {
            Ok(added) => added,
            Err(error) => return Err(self.refuse(attempt, error, operator, now).await),
        };
        Ok(Response::new(pb::AddBotResponse {
            bot: Some(wire::to_wire(&bot)),
            token,
            token_expires: Some(timestamp(expires)),
            ca_pin: self.issuer.keyring().pin(),
            grpc_address: self.grpc_address.clone(),
        }))
    }

    async fn unlock_bot_instance(
        &self,
        request: Request<pb::UnlockBotInstanceRequest>,
    ) -> Result<Response<pb::UnlockBotInstanceResponse>, Status> {
        let operator = operator(&request);
        let request = request.into_inner();
        let told = format!("{}/{}", request.bot_name, request.instance_id);
        let now = SystemTime::now();
        let user = operator.clone();
        let write = self.issuer.store.write(move |tx| {
            let (request, user) = (request.clone(), user.clone());
            Box::pin(async move {
                let (bot, instance) = (&request.bot_name, &request.instance_id);
                access::unlock_instance(tx, bot, instance, &user, now).await
            })
        });
        if !write.await.map_err(unavailable)? {
            let attempt = Attempt::Delete(Kind::Lock, told.clone());
            let error = ChangeError::NotLocked(told);
            return Err(self.refuse(attempt, error, operator, now).await);
        }
        Ok(Response::new(pb::UnlockBotInstanceResponse {}))
    }

    async fn list_bot_instances(
        &self,
        request: Request<pb::ListBotInstancesRequest>,
    ) -> Result<Response<pb::ListBotInstancesResponse>, Status> {
        let bot_name = request.into_inner().bot_name;
        let read = async {
            let mut connection = self.issuer.store.read().await?;
            instances::list(&mut connection, &bot_name).await
        };
        let found = read.await.map_err(unavailable)?;
        let (catalog, now) = (self.issuer.store.catalog(), SystemTime::now());
        Ok(Response::new(pb::ListBotInstancesResponse {
            instances: found
                .into_iter()
                .map(|instance| bot_instance(&catalog, instance, now))
                .collect::<Result<_, _>>()
                .map_err(unavailable)?,
        }))
    }

    async fn renew_now(
        &self,
        request: Request<pb::RenewNowRequest>,
    ) -> Result<Response<pb::RenewNowResponse>, Status> {
        let operator = operator(&request);
        let within = request.into_inner().within.unwrap_or_default();
        let within = wire::duration(&within)
            .filter(|within| *within <= Duration::from_secs(24 * 3600))
            .ok_or_else(|| Status::invalid_argument("the window is at least 0s and at most 24h"))?;
        let now = SystemTime::now();
        let renew_epoch = self
            .issuer
            .store
            .write(move |tx| {
                let operator = operator.clone();
                Box::pin(async move { changes::order_renewal(tx, within, &operator, now).await })
            })
            .await
            .map_err(unavailable)?;
        tracing::info!(renew_epoch, ?within, "agents are told to renew");
        Ok(Response::new(pb::RenewNowResponse { renew_epoch }))
    }

    async fn list_authorities(
        &self,
        _request: Request<pb::ListAuthoritiesRequest>,
    ) -> Result<Response<pb::ListAuthoritiesResponse>, Status> {
        Ok(Response::new(pb::ListAuthoritiesResponse {
            authorities: authorities::list(&self.issuer),
        }))
    }

    async fn rotate_authorities(
        &self,
        request: Request<pb::RotateAuthoritiesRequest>,
    ) -> Result<Response<pb::RotateAuthoritiesResponse>, Status> {
        let operator = operator(&request);
        let rotated = authorities::rotate(&self.issuer, request.into_inner(), operator).await?;
        Ok(Response::new(rotated))
    }

    async fn withdraw_authority(
        &self,
        request: Request<pb::WithdrawAuthorityRequest>,
    ) -> Result<Response<pb::WithdrawAuthorityResponse>, Status> {
        let operator = operator(&request);
        let withdrawn = authorities::withdraw(&self.issuer, request.into_inner(), operator).await?;
        Ok(Response::new(withdrawn))
    }

    async fn explain(
        &self,
        request: Request<pb::ExplainRequest>,
    ) -> Result<Response<pb::ExplainResponse>, Status> {
        let answer = super::explain::answer(&self.issuer, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    type SearchAuditStream = ReceiverStream<Result<pb::AuditEvent, Status>>;

    async fn search_audit(
        &self,
        request: Request<pb::SearchAuditRequest>,
    ) -> Result<Response<Self::SearchAuditStream>, Status> {
        let request = request.into_inner();
        let (send, receive) = mpsc::channel(64);
        let issuer = self.issuer.clone();
        let draining = self.draining.clone();
        tokio::spawn(async move {
            if let Err(status) = audit::search(&issuer, request, draining, &send).await {
                // The operator may be gone.
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn get_audit_head(
        &self,
        _request: Request<pb::GetAuditHeadRequest>,
    ) -> Result<Response<pb::GetAuditHeadResponse>, Status> {
        let head = audit::head(&self.issuer).await.map_err(unavailable)?;
        Ok(Response::new(head))
    }

    type ListAuditCheckpointsStream = ReceiverStream<Result<pb::AuditCheckpoint, Status>>;

    async fn list_audit_checkpoints(
        &self,
        request: Request<pb::ListAuditCheckpointsRequest>,
    ) -> Result<Response<Self::ListAuditCheckpointsStream>, Status> {
        let request = request.into_inner();
        let (send, receive) = mpsc::channel(64);
        let issuer = self.issuer.clone();
        tokio::spawn(async move {
            if let Err(status) = audit::list_checkpoints(&issuer, request, &send).await {
                // The operator may be gone.
                let _ = send.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

impl AdminApi {
    /// Records a refused change; what the operator is told.
    async fn refuse(
        &self,
        attempt: Attempt,
        error: ChangeError,
        operator: String,
        now: SystemTime,
    ) -> Status {
        if matches!(error, ChangeError::Store(_)) {
            return refused(error);
        }
        let told = error.to_string();
        let write = self.issuer.store.write(move |tx| {
            let (attempt, told) = (attempt.clone(), told.clone());
            let operator = operator.clone();
            Box::pin(
                async move { changes::record_refusal(tx, attempt, &told, &operator, now).await },
            )
        });
        match write.await {
            Ok(()) => refused(error),
            Err(store) => unavailable(store),
        }
    }
}

fn bot_instance(
    catalog: &Catalog,
    instance: BotInstance,
    now: SystemTime,
) -> Result<pb::BotInstance, StoreError> {
    let (bot, id) = (&instance.bot_name, instance.instance_id.as_str());
    let targets = access::lock_targets(bot, Some(id), &instance.join_token_name);
    let lock = catalog.lock_on(&targets, now)?;
    let locked_reason = match lock.as_ref().map(|lock| (&lock.spec, &lock.metadata.name)) {
        None => String::new(),
        Some((Spec::Lock(lock), _)) if !lock.message.is_empty() => lock.message.clone(),
        Some((_, name)) => format!("lock {name}"),
    };
    Ok(pb::BotInstance {
        bot_name: instance.bot_name,
        instance_id: instance.instance_id,
        generation: instance.generation,
        joined: Some(timestamp(instance.joined)),
        last_renewed: (instance.generation > 1).then(|| timestamp(instance.renewed)),
        not_after: Some(timestamp(instance.not_after)),
        locked_reason,
        hostname: instance.hostname,
    })
}
