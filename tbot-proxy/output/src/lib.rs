//! Identity documents as files, Kubernetes Secrets and credentials, changed
//! together or not at all (DESIGN D13).
