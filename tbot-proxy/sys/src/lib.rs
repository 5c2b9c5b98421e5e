//! Socket options and process facts that need unsafe code. The only crate that may contain it.
#![allow(unsafe_code)]
