//! Commands to a TPM and its answers.

use std::{
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use tpm2_protocol::{
    TpmError, TpmWriter,
    constant::TPM_MAX_COMMAND_SIZE,
    data::{TpmRc, TpmRcBase, TpmSt, TpmsAuthCommand},
    frame::{TpmFrame, TpmResponse, TpmUnmarshalBody, tpm_marshal_command},
};
use zeroize::Zeroizing;

use super::TpmAddress;

/// How long a simulator may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// Tag, length and code.
const HEADER: usize = 10;
/// How often a TPM that asks for it is asked again.
const ATTEMPTS: u32 = 5;

/// A TPM that is open.
pub(super) enum Device {
    Device(File),
    Tcp(TcpStream),
}

/// What came in place of an answer.
#[derive(Debug)]
pub(super) enum Fault {
    /// The TPM says no.
    Refused(TpmRcBase),
    /// It cannot be spoken with.
    Io(io::Error),
    /// What it says is not understood.
    Answer(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(TpmRcBase::BadAuth | TpmRcBase::AuthFail) => {
                f.write_str("its owner hierarchy has a password, which is not known here")
            }
            Self::Refused(TpmRcBase::PolicyFail) => {
                f.write_str("the PCRs are not as they were when the key was sealed")
            }
            Self::Refused(code) => write!(f, "{code}"),
            Self::Io(error) => error.fmt(f),
            Self::Answer(why) => f.write_str(why),
        }
    }
}

impl From<TpmError> for Fault {
    fn from(error: TpmError) -> Self {
        Self::Answer(error.to_string())
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Device {
    pub(super) fn open(address: &TpmAddress) -> Result<Self, Fault> {
        Ok(match address {
            TpmAddress::Device(path) => {
                Self::Device(OpenOptions::new().read(true).write(true).open(path)?)
            }
            TpmAddress::Tcp(address) => {
                let stream = TcpStream::connect(address.as_str())?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Self::Tcp(stream)
            }
        })
    }

    pub(super) fn call<C: TpmFrame, R: TpmUnmarshalBody>(
        &mut self,
        command: &C,
        authorizations: &[TpmsAuthCommand],
    ) -> Result<R, Fault> {
        let tag = match authorizations {
            [] => TpmSt::NoSessions,
            _ => TpmSt::Sessions,
        };
        let mut request = Zeroizing::new(vec![0; TPM_MAX_COMMAND_SIZE]);
        let mut writer = TpmWriter::new(&mut request);
        tpm_marshal_command(command, tag, authorizations, &mut writer)?;
        let length = writer.len();
        let mut attempt = 1;
        loop {
            let answer = self.exchange(&request[..length])?;
            let answer = TpmResponse::cast(&answer)?;
            match answer.rc()? {
                TpmRc::Fmt0(TpmRcBase::Success) => return Ok(answer.unmarshal()?),
                TpmRc::Warn(TpmRcBase::Retry | TpmRcBase::Yielded | TpmRcBase::Testing)
                    if attempt < ATTEMPTS =>
                {
                    std::thread::sleep(Duration::from_millis(50) * attempt);
                    attempt += 1;
                }
                refused => return Err(Fault::Refused(refused.base())),
            }
        }
    }

    fn exchange(&mut self, request: &[u8]) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let mut answer = Zeroizing::new(vec![0; TPM_MAX_COMMAND_SIZE]);
        let length = match self {
            // One write is a command, one read the whole answer.
            Self::Device(file) => {
                file.write_all(request)?;
                file.read(&mut answer)?
            }
            Self::Tcp(stream) => {
                stream.write_all(request)?;
                let too_long = || Fault::Answer("its answer is longer than answers are".to_owned());
                let header = answer.get_mut(..HEADER).ok_or_else(too_long)?;
                stream.read_exact(header)?;
                let &[_, _, a, b, c, d, ..] = &*header else {
                    return Err(too_long());
                };
                let length = u32::from_be_bytes([a, b, c, d]);
                let length = usize::try_from(length).map_err(|_| too_long())?;
                let rest = answer.get_mut(HEADER..length).ok_or_else(too_long)?;
                stream.read_exact(rest)?;
                length
            }
        };
        answer.truncate(length);
        Ok(answer)
    }
}
