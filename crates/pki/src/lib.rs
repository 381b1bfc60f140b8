//! Certificates, keys and kubeconfigs over bytes: no files, no network, no clock.
//!
//! [`read`] parses and compares, [`kubeconfig`] finds and replaces the identity in one, [`mod@renew`] makes keys and
//! requests, signs them, and says no to whatever is for somebody else than the certificate it replaces. Private keys are
//! carried in [`rekindle_model::Redacted`]; no error quotes what it could not parse.

mod error;
pub mod kubeconfig;
mod pem;
pub mod read;
pub mod renew;

pub use error::Error;
pub use pem::certificate_pem;
