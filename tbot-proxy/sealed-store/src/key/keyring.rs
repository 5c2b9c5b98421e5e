//! A key in the keyring of the kernel.

use std::path::Path;

use linux_keyutils::{
    KeyError as KernelError, KeyPermissionsBuilder, KeyRing, KeyRingIdentifier, Permission,
};
use zeroize::Zeroizing;

use super::{KeyBytes, KeyError, LENGTH, generate};

/// The key of the store in this directory. A service has no session keyring that lasts, so
/// it is in the keyring of the user, and the user may read it: a process that did not put it
/// there itself does not *possess* it (keyrings(7)).
pub(super) fn key(directory: &Path) -> Result<KeyBytes, KeyError> {
    let failed = |tried| {
        move |error: KernelError| KeyError::Keyring {
            tried,
            why: format!("{error:?}"),
        }
    };
    let ring = KeyRing::from_special_id(KeyRingIdentifier::User, true);
    let ring = ring.map_err(failed("open the keyring of this user"))?;
    let description = format!("tbot-proxy:sealed-store:{}", directory.display());
    match ring.search(&description) {
        Ok(found) => {
            let bytes = found.read_to_vec().map_err(failed("read the key"))?;
            let bytes = Zeroizing::new(bytes);
            let key = <[u8; LENGTH]>::try_from(bytes.as_slice());
            key.map(Zeroizing::new).map_err(|_| KeyError::Keyring {
                tried: "use the key",
                why: format!("`{description}` is not {LENGTH} bytes long and none of ours"),
            })
        }
        Err(
            KernelError::KeyDoesNotExist
            | KernelError::KeyExpired
            | KernelError::KeyRevoked
            | KernelError::KeyringDoesNotExist,
        ) => {
            let key = generate()?;
            // In the keyring of this process it is possessed, so its permissions can be set;
            // the session keyring of a service need not have that of the user in it.
            let own = KeyRing::from_special_id(KeyRingIdentifier::Process, true);
            let own = own.map_err(failed("open the keyring of this process"))?;
            let added = own.add_key(description.as_str(), &key[..]);
            let added = added.map_err(failed("add a key"))?;
            let permissions = KeyPermissionsBuilder::builder()
                .posessor(Permission::ALL)
                .user(
                    Permission::VIEW
                        | Permission::READ
                        | Permission::SEARCH
                        | Permission::WRITE
                        | Permission::LINK,
                )
                .build();
            added
                .set_perms(permissions)
                .map_err(failed("let this user read the key"))?;
            ring.link_key(added)
                .map_err(failed("put the key into the keyring of this user"))?;
            tracing::info!(
                description,
                "a key for the sealed store was made in the kernel's keyring"
            );
            Ok(key)
        }
        Err(error) => Err(failed("look for the key")(error)),
    }
}
