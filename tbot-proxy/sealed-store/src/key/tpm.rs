//! A key that a TPM 2.0 gives to this machine only.
//!
//! The key is sealed below a storage key that the TPM derives anew each time from the seed
//! of its owner hierarchy (TCG TPM 2.0 Library, part 1, 14): what lies on the disk is of no
//! use to another TPM. With PCRs named, it is of no use to another state of this machine
//! either. What goes between this process and the TPM is not encrypted: who can listen on
//! that bus hears the key.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use tpm2_protocol::{
    TpmMarshal, TpmUnmarshal, TpmWriter,
    basic::{TpmHandle, TpmUint16},
    data::{
        Tpm2bDigest, Tpm2bNonce, Tpm2bPrivate, Tpm2bPublic, Tpm2bSensitiveCreate,
        Tpm2bSensitiveData, TpmAlgId, TpmEccCurve, TpmRcBase, TpmRh, TpmSe, TpmaObject,
        TpmaSession, TpmlPcrSelection, TpmsAuthCommand, TpmsEccParms, TpmsEccPoint,
        TpmsKeyedhashParms, TpmsPcrSelect, TpmsPcrSelection, TpmsSensitiveCreate, TpmtPublic,
        TpmtSymDefObject, TpmuPublicId, TpmuPublicParms, TpmuSymKeyBits, TpmuSymMode,
    },
    frame::{
        TpmCreateCommand, TpmCreatePrimaryCommand, TpmCreatePrimaryResponse, TpmCreateResponse,
        TpmFlushContextCommand, TpmFlushContextResponse, TpmLoadCommand, TpmLoadResponse,
        TpmPolicyGetDigestCommand, TpmPolicyGetDigestResponse, TpmPolicyPcrCommand,
        TpmPolicyPcrResponse, TpmStartAuthSessionCommand, TpmStartAuthSessionResponse,
        TpmUnsealCommand, TpmUnsealResponse,
    },
};

use super::{KeyBytes, KeyError, LENGTH, generate, told};

mod device;

use device::{Device, Fault};

/// Highest number of a PCR.
pub const PCR_MAX: u8 = 23;
/// The file with what the TPM needs to give the key: `TPM2B_PRIVATE ‖ TPM2B_PUBLIC`.
const FILE: &str = "key.tpm";
/// Octets of a selection of 24 PCRs.
const SELECTION: usize = 3;

/// Where a TPM is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TpmAddress {
    /// A character device: `/dev/tpmrm0`, which shares the TPM with others.
    Device(PathBuf),
    /// `host:port` of a simulator, such as swtpm.
    Tcp(String),
}

impl FromStr for TpmAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(address) = text.strip_prefix("tcp://") {
            return match address.rsplit_once(':') {
                Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                    Ok(Self::Tcp(address.to_owned()))
                }
                _ => Err(format!(
                    "`{text}` is no address of a TPM: write tcp://host:port"
                )),
            };
        }
        match text.starts_with('/') {
            true => Ok(Self::Device(PathBuf::from(text))),
            false => Err(format!(
                "`{text}` is no TPM: write /dev/tpmrm0 or tcp://host:port"
            )),
        }
    }
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

/// The key of the store in this directory.
pub(super) fn key(
    directory: &Path,
    address: &TpmAddress,
    pcrs: &[u8],
) -> Result<KeyBytes, KeyError> {
    let failed = |(tried, fault): (&'static str, Fault)| KeyError::Tpm {
        address: address.to_string(),
        tried,
        why: fault.to_string(),
    };
    let path = directory.join(FILE);
    let mut device = Device::open(address).map_err(|fault| failed(("cannot connect", fault)))?;
    let parent = device.storage_key().map_err(failed)?;
    let key = device.key(parent, &path, address, pcrs, failed);
    device.flush(parent).map_err(failed)?;
    key
}

fn unusable(path: &Path, why: &str) -> KeyError {
    KeyError::File {
        path: path.to_owned(),
        why: why.to_owned(),
    }
}

/// What the TPM needs to give the key.
struct Sealed {
    private: Tpm2bPrivate,
    public: Tpm2bPublic,
}

impl Sealed {
    fn read(bytes: &[u8]) -> Option<Self> {
        let (private, rest) = Tpm2bPrivate::unmarshal(bytes).ok()?;
        let (public, rest) = Tpm2bPublic::unmarshal(rest).ok()?;
        rest.is_empty().then_some(Self { private, public })
    }

    fn bytes(&self) -> Vec<u8> {
        let mut buffer = vec![0; tpm2_protocol::constant::TPM_MAX_COMMAND_SIZE];
        let mut writer = TpmWriter::new(&mut buffer);
        let written = self
            .private
            .marshal(&mut writer)
            .and_then(|()| self.public.marshal(&mut writer));
        let length = written.map_or(0, |()| writer.len());
        buffer.truncate(length);
        buffer
    }
}

type Told<T> = Result<T, (&'static str, Fault)>;

impl Device {
    /// The key that is sealed below `parent`; a new one if there is none that can be had.
    fn key(
        &mut self,
        parent: TpmHandle,
        path: &Path,
        address: &TpmAddress,
        pcrs: &[u8],
        failed: impl Fn((&'static str, Fault)) -> KeyError,
    ) -> Result<KeyBytes, KeyError> {
        let known = match fs::read(path) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(unusable(path, &told(&error))),
        };
        let unsealed = match known.as_deref().map(|bytes| Sealed::read(bytes).ok_or(())) {
            Some(Ok(sealed)) => match self.unseal(parent, &sealed, pcrs) {
                Ok(key) => Some(key),
                // Another TPM, another owner, another state of the machine: what was sealed is
                // lost, as it is meant to be.
                Err((tried, fault)) if fault.is_refusal() => {
                    tracing::warn!(
                        tpm = %address,
                        tried,
                        %fault,
                        "the TPM does not give the key of the sealed store any more: a new one is made"
                    );
                    None
                }
                Err(error) => return Err(failed(error)),
            },
            Some(Err(())) => {
                tracing::warn!(path = %path.display(), "it holds no sealed key: a new one is made");
                None
            }
            None => None,
        };
        let key = match unsealed {
            Some(key) => key,
            None => {
                let key = generate()?;
                let sealed = self.seal(parent, &key, pcrs).map_err(&failed)?;
                // A key that could not be had again would lose what it seals.
                self.unseal(parent, &sealed, pcrs).map_err(&failed)?;
                crate::write(path, &sealed.bytes())
                    .map_err(|error| unusable(path, &told(&error)))?;
                key
            }
        };
        Ok(key)
    }

    /// The storage key that a key is sealed below: an ECC key by the template of the TCG's
    /// storage root key (TCG EK Credential Profile 2.5, H-1 of the SRK), so always the same.
    fn storage_key(&mut self) -> Told<TpmHandle> {
        let aes = TpmtSymDefObject {
            algorithm: TpmAlgId::Aes,
            key_bits: TpmuSymKeyBits::Aes(TpmUint16::new(128)),
            mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
        };
        let attributes = TpmaObject::FIXED_TPM
            | TpmaObject::FIXED_PARENT
            | TpmaObject::SENSITIVE_DATA_ORIGIN
            | TpmaObject::USER_WITH_AUTH
            | TpmaObject::NO_DA
            | TpmaObject::RESTRICTED
            | TpmaObject::DECRYPT;
        let public = TpmtPublic {
            object_type: TpmAlgId::Ecc,
            name_alg: TpmAlgId::Sha256,
            object_attributes: attributes,
            auth_policy: Tpm2bDigest::new(),
            parameters: TpmuPublicParms::Ecc(TpmsEccParms {
                symmetric: aes,
                curve_id: TpmEccCurve::NistP256,
                ..TpmsEccParms::default()
            }),
            unique: TpmuPublicId::Ecc(TpmsEccPoint::default()),
        };
        let command = TpmCreatePrimaryCommand {
            handles: [TpmHandle::new(TpmRh::Owner as u32)],
            in_public: Tpm2bPublic { inner: public },
            ..TpmCreatePrimaryCommand::default()
        };
        let made: Result<TpmCreatePrimaryResponse, _> = self.call(&command, &[password()]);
        let [handle] = made
            .map_err(|fault| ("cannot make the storage key", fault))?
            .handles;
        Ok(handle)
    }

    fn seal(&mut self, parent: TpmHandle, key: &KeyBytes, pcrs: &[u8]) -> Told<Sealed> {
        let policy = match pcrs.is_empty() {
            true => Tpm2bDigest::new(),
            false => self.policy_now(pcrs)?,
        };
        let mut attributes = TpmaObject::FIXED_TPM | TpmaObject::FIXED_PARENT | TpmaObject::NO_DA;
        if pcrs.is_empty() {
            attributes |= TpmaObject::USER_WITH_AUTH;
        }
        let public = TpmtPublic {
            object_type: TpmAlgId::KeyedHash,
            name_alg: TpmAlgId::Sha256,
            object_attributes: attributes,
            auth_policy: policy,
            parameters: TpmuPublicParms::KeyedHash(TpmsKeyedhashParms::default()),
            unique: TpmuPublicId::KeyedHash(Tpm2bDigest::new()),
        };
        let mut data = Tpm2bSensitiveData::new();
        let command = data
            .try_extend_from_slice(&key[..])
            .map(|()| TpmCreateCommand {
                handles: [parent],
                in_sensitive: Tpm2bSensitiveCreate {
                    inner: TpmsSensitiveCreate {
                        data,
                        ..TpmsSensitiveCreate::default()
                    },
                },
                in_public: Tpm2bPublic { inner: public },
                outside_info: Default::default(),
                creation_pcr: Default::default(),
            });
        let tried = "cannot seal a key";
        let command = command.map_err(|error| (tried, Fault::from(error)))?;
        let made: TpmCreateResponse = self
            .call(&command, &[password()])
            .map_err(|fault| (tried, fault))?;
        Ok(Sealed {
            private: made.out_private,
            public: made.out_public,
        })
    }

    fn unseal(&mut self, parent: TpmHandle, sealed: &Sealed, pcrs: &[u8]) -> Told<KeyBytes> {
        let tried = "cannot load the sealed key";
        let load = TpmLoadCommand {
            handles: [parent],
            in_private: sealed.private,
            in_public: sealed.public.clone(),
        };
        let loaded: TpmLoadResponse = self
            .call(&load, &[password()])
            .map_err(|fault| (tried, fault))?;
        let [object] = loaded.handles;
        let unsealed = self.unsealed(object, pcrs);
        self.flush(object)?;
        unsealed
    }

    fn unsealed(&mut self, object: TpmHandle, pcrs: &[u8]) -> Told<KeyBytes> {
        let tried = "cannot unseal the key";
        let session = match pcrs.is_empty() {
            true => None,
            false => Some(self.policy_session(TpmSe::Policy, pcrs)?),
        };
        let authorization = session.map_or_else(password, |session_handle| TpmsAuthCommand {
            session_handle,
            // Ended by its use.
            ..TpmsAuthCommand::default()
        });
        let command = TpmUnsealCommand { handles: [object] };
        let answer: Result<TpmUnsealResponse, _> = self.call(&command, &[authorization]);
        let answer = match (answer, session) {
            (Ok(answer), _) => answer,
            (Err(fault), session) => {
                if let Some(session) = session {
                    _ = self.flush(session);
                }
                return Err((tried, fault));
            }
        };
        let bytes = <[u8; LENGTH]>::try_from(&answer.out_data[..]);
        bytes
            .map(KeyBytes::new)
            .map_err(|_| (tried, Fault::Answer("it is no key of ours".to_owned())))
    }

    /// What a policy for these PCRs comes to, as they are now.
    fn policy_now(&mut self, pcrs: &[u8]) -> Told<Tpm2bDigest> {
        let session = self.policy_session(TpmSe::Trial, pcrs)?;
        let command = TpmPolicyGetDigestCommand { handles: [session] };
        let digest: Result<TpmPolicyGetDigestResponse, _> = self.call(&command, &[]);
        self.flush(session)?;
        let digest = digest.map_err(|fault| ("cannot read the policy", fault))?;
        Ok(digest.policy_digest)
    }

    fn policy_session(&mut self, session_type: TpmSe, pcrs: &[u8]) -> Told<TpmHandle> {
        let tried = "cannot check PCRs";
        let null = TpmHandle::new(TpmRh::Null as u32);
        let mut nonce = Tpm2bNonce::new();
        let (mut octets, mut pcr_list) = ([0_u8; SELECTION], TpmlPcrSelection::default());
        for pcr in pcrs {
            if let Some(octet) = octets.get_mut(usize::from(*pcr / 8)) {
                *octet |= 1 << (pcr % 8);
            }
        }
        let arguments = TpmsPcrSelect::try_from(&octets[..]).and_then(|pcr_select| {
            nonce.try_extend_from_slice(&generate().map(|key| *key).unwrap_or_default())?;
            pcr_list.try_push(TpmsPcrSelection {
                hash: TpmAlgId::Sha256,
                pcr_select,
            })
        });
        arguments.map_err(|error| (tried, Fault::from(error)))?;
        let command = TpmStartAuthSessionCommand {
            handles: [null, null],
            nonce_caller: nonce,
            encrypted_salt: Default::default(),
            session_type,
            symmetric: TpmtSymDefObject {
                algorithm: TpmAlgId::Null,
                ..TpmtSymDefObject::default()
            },
            auth_hash: TpmAlgId::Sha256,
        };
        let started: TpmStartAuthSessionResponse =
            self.call(&command, &[]).map_err(|fault| (tried, fault))?;
        let [session] = started.handles;
        let command = TpmPolicyPcrCommand {
            handles: [session],
            pcr_digest: Tpm2bDigest::new(),
            pcrs: pcr_list,
        };
        match self.call::<_, TpmPolicyPcrResponse>(&command, &[]) {
            Ok(_) => Ok(session),
            Err(fault) => {
                _ = self.flush(session);
                Err((tried, fault))
            }
        }
    }

    fn flush(&mut self, handle: TpmHandle) -> Told<()> {
        let command = TpmFlushContextCommand {
            handles: [],
            flush_handle: handle,
        };
        let flushed: Result<TpmFlushContextResponse, _> = self.call(&command, &[]);
        flushed
            .map(|_| ())
            .map_err(|fault| ("cannot clean up", fault))
    }
}

impl Fault {
    /// Whether the TPM will never give what was asked for.
    fn is_refusal(&self) -> bool {
        matches!(
            self,
            Self::Refused(
                TpmRcBase::PolicyFail
                    | TpmRcBase::AuthUnavailable
                    | TpmRcBase::Attributes
                    | TpmRcBase::Binding
                    | TpmRcBase::Integrity
                    | TpmRcBase::Size
                    | TpmRcBase::Type
                    | TpmRcBase::Value
            )
        )
    }
}

/// The empty password: neither the owner hierarchy nor our keys have another.
fn password() -> TpmsAuthCommand {
    TpmsAuthCommand {
        session_handle: TpmHandle::new(TpmRh::Pw as u32),
        session_attributes: TpmaSession::CONTINUE_SESSION,
        ..TpmsAuthCommand::default()
    }
}
