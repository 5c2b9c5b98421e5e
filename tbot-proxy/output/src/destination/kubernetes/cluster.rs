//! The cluster, and who we are there.

use std::env;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use super::{CALL, SecretConfig, one_line};
use crate::destination::DestinationError;

/// A namespace of a cluster.
#[derive(Clone)]
pub(super) struct Connected {
    pub(super) secrets: Api<Secret>,
    pub(super) namespace: String,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.namespace)
    }
}

/// Why there is none.
pub(super) fn cannot_find(error: &dyn std::fmt::Display) -> DestinationError {
    DestinationError::new(format!(
        "Kubernetes cannot be found: {}; run in a pod with a service account, or set `kubeconfig`",
        one_line(&error.to_string())
    ))
}

/// Finds the cluster, and who we are there.
pub(super) async fn connect(secret: &SecretConfig) -> Result<Connected, DestinationError> {
    let mut config = match &secret.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| cannot_find(&error))?;
            let options = KubeConfigOptions {
                context: secret.context.clone(),
                ..KubeConfigOptions::default()
            };
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| cannot_find(&error))?
        }
        None => Config::infer().await.map_err(|error| cannot_find(&error))?,
    };
    config.connect_timeout = Some(CALL);
    config.read_timeout = Some(CALL);
    config.write_timeout = Some(CALL);
    let of_pod = || {
        env::var("POD_NAMESPACE")
            .ok()
            .filter(|name| !name.is_empty())
    };
    let namespace = secret
        .namespace
        .clone()
        .or_else(of_pod)
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|error| cannot_find(&error))?;
    Ok(Connected {
        secrets: Api::namespaced(client, &namespace),
        namespace,
    })
}
