//! The resource RPCs: apply, get, delete.

use std::time::SystemTime;

use prost::Message;
use proto::admin::v1 as pb;
use tonic::{Request, Response, Status};

use super::{AdminApi, invalid, operator, refused, unavailable};
use crate::{
    access::changes::{self, Applied, Attempt, ChangeError, NotApplied},
    audit::Change,
    resources::{Kind, LabelSelector, NameError, Resource, wire, yaml},
    store::{StoreError, tokens},
};

/// Resources that the record of a refused change names.
const TOLD_MAX: usize = 64;
/// Most bytes of the resources of a page; clients of gRPC accept 4 MiB by default.
const PAGE_MAX: usize = 3 * 1024 * 1024;

impl AdminApi {
    pub(super) async fn apply(
        &self,
        request: Request<pb::ApplyResourcesRequest>,
    ) -> Result<Response<pb::ApplyResourcesResponse>, Status> {
        let operator = operator(&request);
        let now = SystemTime::now();
        let pb::ApplyResourcesRequest { resources, dry_run } = request.into_inner();
        let attempt = Attempt::Apply(resources.iter().take(TOLD_MAX).map(reference).collect());
        let applied = match self.checked(resources) {
            Ok(wanted) => {
                let user = operator.clone();
                let write = self.issuer.store.write(move |tx| {
                    let (wanted, user) = (wanted.clone(), user.clone());
                    Box::pin(async move {
                        let applied = changes::apply(tx, wanted, &user, now).await?;
                        match dry_run {
                            true => Err(NotApplied::DryRun(applied)),
                            false => Ok(applied),
                        }
                    })
                });
                write.await
            }
            Err(error) => Err(NotApplied::Refused(error)),
        };
        let applied = match applied {
            Ok(applied) | Err(NotApplied::DryRun(applied)) => applied,
            // Nothing was to be changed, so no change was refused.
            Err(NotApplied::Refused(error)) if dry_run => return Err(refused(error)),
            Err(NotApplied::Refused(error)) => {
                return Err(self.refuse(attempt, error, operator, now).await);
            }
        };
        Ok(Response::new(pb::ApplyResourcesResponse {
            results: applied.into_iter().map(applied_resource).collect(),
        }))
    }

    pub(super) async fn get(
        &self,
        request: pb::GetResourcesRequest,
    ) -> Result<Response<pb::GetResourcesResponse>, Status> {
        let kind: Kind = request.kind.parse().map_err(invalid)?;
        let selectors = request.labels.into_iter();
        let selector = LabelSelector::new(selectors.map(|key| (key.key, key.values)));
        let selector = selector.map_err(invalid)?;
        if !request.name.is_empty() {
            let found = self.read_one(kind, &request.name).await;
            let resource = found.map_err(unavailable)?.ok_or_else(|| {
                let name = request.name;
                refused(ChangeError::NotFound { kind, name })
            })?;
            return Ok(Response::new(pb::GetResourcesResponse {
                resources: vec![resource],
                more: false,
            }));
        }
        let after = Some(request.after.as_str()).filter(|after| !after.is_empty());
        let page = match kind {
            Kind::Token => {
                let tokens = self.tokens("").await.map_err(unavailable)?;
                let after = tokens.into_iter().map(Ok).filter(|token| match token {
                    Ok(token) => after.is_none_or(|after| name(token) > after),
                    Err(_) => true,
                });
                page(after, &selector)
            }
            _ => page(self.issuer.store.catalog().stored(kind, after), &selector),
        };
        page.map(Response::new).map_err(unavailable)
    }

    pub(super) async fn delete(
        &self,
        request: Request<pb::DeleteResourceRequest>,
    ) -> Result<Response<pb::DeleteResourceResponse>, Status> {
        let operator = operator(&request);
        let request = request.into_inner();
        let kind: Kind = request.kind.parse().map_err(invalid)?;
        let now = SystemTime::now();
        let (user, name, revision) = (operator.clone(), request.name.clone(), request.revision);
        let write = self.issuer.store.write(move |tx| {
            let (name, user) = (name.clone(), user.clone());
            Box::pin(async move { changes::delete(tx, kind, &name, revision, &user, now).await })
        });
        if let Err(error) = write.await {
            let attempt = Attempt::Delete(kind, request.name);
            return Err(self.refuse(attempt, error, operator, now).await);
        }
        Ok(Response::new(pb::DeleteResourceResponse {}))
    }

    /// Validates resources, as far as they hang on this trust domain, too (ID-16).
    /// The mistakes of all are told.
    fn checked(&self, resources: Vec<pb::Resource>) -> Result<Vec<Resource>, ChangeError> {
        let mut checked = Vec::with_capacity(resources.len());
        let mut mistakes = Vec::new();
        for resource in resources {
            let reference = reference(&resource);
            match wire::from_wire_in(self.issuer.trust_domain(), resource) {
                Ok(resource) => checked.push(resource),
                Err(error) => mistakes.push(format!("{reference}: {error}")),
            }
        }
        match mistakes.is_empty() {
            true => Ok(checked),
            false => Err(ChangeError::Invalid(mistakes.join("; "))),
        }
    }

    async fn read_one(&self, kind: Kind, name: &str) -> Result<Option<pb::Resource>, StoreError> {
        if kind == Kind::Token {
            return Ok(self.tokens(name).await?.pop());
        }
        let found = self.issuer.store.catalog().resource(kind, name)?;
        Ok(found.map(|resource| wire::to_wire(&resource)))
    }

    /// The one that is shown under this name, or all, by name.
    async fn tokens(&self, name: &str) -> Result<Vec<pb::Resource>, StoreError> {
        let mut connection = self.issuer.store.read().await?;
        let mut found = tokens::list(&mut connection, name).await?;
        found.sort_by(|one, other| one.name.cmp(&other.name));
        let damaged = |error: NameError| StoreError::Damaged(error.to_string());
        found
            .iter()
            .map(|token| Ok(wire::to_wire(&token.to_resource().map_err(damaged)?)))
            .collect()
    }
}

/// As many of those that are selected as fit a page.
fn page(
    resources: impl Iterator<Item = Result<pb::Resource, StoreError>>,
    selector: &LabelSelector,
) -> Result<pb::GetResourcesResponse, StoreError> {
    let mut page = pb::GetResourcesResponse::default();
    let mut size = 0;
    for resource in resources {
        let resource = resource?;
        if !selector.is_empty() && !selected(selector, &resource) {
            continue;
        }
        size += resource.encoded_len();
        if size > PAGE_MAX && !page.resources.is_empty() {
            page.more = true;
            break;
        }
        page.resources.push(resource);
    }
    Ok(page)
}

fn selected(selector: &LabelSelector, resource: &pb::Resource) -> bool {
    let labels = resource.metadata.as_ref().map(|metadata| &metadata.labels);
    selector.matches_by(|key| labels?.get(key).map(String::as_str))
}

fn name(resource: &pb::Resource) -> &str {
    let metadata = resource.metadata.as_ref();
    metadata.map_or("", |metadata| &metadata.name)
}

/// `kind/name`, without the name of a token, which is its secret.
fn reference(resource: &pb::Resource) -> String {
    let kind = yaml::kind_of(resource).map_or("", Kind::as_str);
    let name = match &resource.spec {
        Some(pb::resource::Spec::Token(_)) | None => String::new(),
        Some(_) => name(resource).chars().take(128).collect(),
    };
    format!("{kind}/{name}")
}

fn applied_resource(applied: Applied) -> pb::AppliedResource {
    use pb::applied_resource::Outcome;
    let outcome = match applied.change {
        None => Outcome::Unchanged,
        Some(Change::Create) => Outcome::Created,
        Some(Change::Update | Change::Delete) => Outcome::Updated,
    };
    pb::AppliedResource {
        resource: Some(wire::to_wire(&applied.resource)),
        outcome: outcome.into(),
        previous: applied.previous.as_ref().map(wire::to_wire),
        warnings: applied.warnings,
    }
}
