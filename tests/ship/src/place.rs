//! Where a Ship is. What a test can do depends on nothing else.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bay_ship_api::handshake::Credentials;
use bay_ship_api::init::Isolation;

use crate::client::Client;
use crate::wait_for;

/// A byte stream to a Ship.
pub trait Stream: Read + Write + Send {
    /// Bounds each read.
    fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()>;
    /// Bounds each write.
    fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()>;
    /// Says that nothing more is sent.
    fn end_of_sending(&self) -> io::Result<()>;
    /// The same connection once more, to read while another thread writes.
    fn again(&self) -> io::Result<Box<dyn Stream>>;
}

macro_rules! stream {
    ($kind:ty) => {
        impl Stream for $kind {
            fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
                <$kind>::set_read_timeout(self, limit)
            }

            fn set_write_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
                <$kind>::set_write_timeout(self, limit)
            }

            fn end_of_sending(&self) -> io::Result<()> {
                self.shutdown(Shutdown::Write)
            }

            fn again(&self) -> io::Result<Box<dyn Stream>> {
                Ok(Box::new(self.try_clone()?))
            }
        }
    };
}

stream!(UnixStream);
stream!(TcpStream);

/// A running container with a Ship in it. Ends with its value.
pub trait Place: Sync {
    /// For messages, such as `bare, two_uid`.
    fn name(&self) -> String;

    /// How user code is kept from the agent here.
    fn isolation(&self) -> Isolation;

    /// A new connection, before the handshake.
    fn dial(&self) -> io::Result<Box<dyn Stream>>;

    /// What the handshake proves.
    fn credentials(&self) -> &Credentials;

    /// Whether the container is over.
    fn ended(&self) -> bool;

    /// What the container wrote to its log.
    fn log(&self) -> String;

    /// The agent's process as the test sees it, where it can.
    fn agent(&self) -> Option<u32> {
        None
    }

    /// A byte stream after the handshake of both sides.
    fn connect(&self) -> io::Result<Box<dyn Stream>> {
        Client::prove(self.dial()?, self.credentials())
    }

    /// A client, once Ship answers.
    fn client(&self) -> Client {
        let connected = wait_for(
            || match self.connect() {
                Ok(stream) => Some(Ok(Client::over(stream))),
                Err(_) if self.ended() => Some(Err(())),
                Err(_) => None,
            },
            "Ship to answer",
        );
        connected.unwrap_or_else(|()| panic!("the container ended: {}", self.log()))
    }
}
