//! The words on the socket: one JSON object a line, each way.
//!
//! `{"version":1,"request":"evict","pack":"german-law"}` is answered by `{"version":1,"ok":...}` or
//! `{"version":1,"error":"..."}`. Requests on one connection are answered in their order. A request `events` with
//! `follow` is answered by line after line, each with the events since the one before (none now and then, as a sign of
//! life), until either end closes; nothing else can be asked on that connection any more.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

/// The only version this build speaks.
pub const PROTOCOL_VERSION: u32 = 1;

/// A longer line is no request, bytes.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

/// What can be asked of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// What the host is doing, with every pack: a `HostStatus`.
    Status,
    /// Every pack: a list of `PackReport`.
    Packs,
    /// The events after a sequence number: a list of `PackEvent`.
    Events {
        /// The last one that is known already; 0 for all that are kept.
        #[serde(default)]
        after: u64,
        /// Whether to go on with those that will come.
        #[serde(default)]
        follow: bool,
    },
    /// Keeps a pack on the device, or no longer.
    Pin {
        /// Its name.
        pack: String,
        /// Whether it is kept.
        keep: bool,
    },
    /// Packs of higher priority are evicted later.
    Priority {
        /// The pack's name.
        pack: String,
        /// 0 is where nothing is said.
        priority: i32,
    },
    /// Takes a pack from the device: an `EvictOutcome`.
    Evict {
        /// Its name.
        pack: String,
    },
    /// Lets a quarantined pack try again.
    Clear {
        /// Its name.
        pack: String,
    },
    /// Looks at the folder of packs again.
    Rescan,
}

/// Why a line is no request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// It is no JSON object.
    #[error("expected one JSON object a line: {0}")]
    NotJson(String),
    /// It is meant for another version of the protocol.
    #[error("expected \"version\": {PROTOCOL_VERSION}, found {0}; use the modularbase of the host's version")]
    Version(String),
    /// It asks for something unknown.
    #[error("unknown request {found}; expected one of {}", REQUESTS.join(", "))]
    Unknown {
        /// What it names.
        found: String,
    },
    /// A known request with wrong or missing words.
    #[error("request `{request}`: {reason}")]
    Invalid {
        /// Its name.
        request: String,
        /// What is wrong.
        reason: String,
    },
}

const REQUESTS: [&str; 8] = ["status", "packs", "events", "pin", "priority", "evict", "clear", "rescan"];

impl Request {
    /// Reads a request; the version is judged before anything else.
    pub fn parse(line: &[u8]) -> Result<Self, RequestError> {
        let mut value: Value =
            serde_json::from_slice(line).map_err(|error| RequestError::NotJson(error.to_string()))?;
        let Some(object) = value.as_object_mut() else {
            return Err(RequestError::NotJson("found another JSON value".to_owned()));
        };
        match object.remove("version") {
            Some(version) if version.as_u64() == Some(u64::from(PROTOCOL_VERSION)) => {}
            found => {
                return Err(RequestError::Version(
                    found.map_or("none".to_owned(), |version| version.to_string()),
                ));
            }
        }
        let request = match object.get("request") {
            Some(Value::String(name)) if REQUESTS.contains(&name.as_str()) => name.clone(),
            found => {
                let found = found.map_or("(there is none)".to_owned(), ToString::to_string);
                return Err(RequestError::Unknown { found });
            }
        };
        serde_json::from_value(value)
            .map_err(|error| RequestError::Invalid { request, reason: error.to_string() })
    }

    /// The request as a line, without its end.
    pub fn to_line(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Line<'a> {
            version: u32,
            #[serde(flatten)]
            request: &'a Request,
        }
        // Words and numbers: there is nothing in a request that JSON can't hold.
        serde_json::to_vec(&Line { version: PROTOCOL_VERSION, request: self }).unwrap_or_default()
    }
}

/// A reply as a line, without its end. A value that JSON can't hold becomes an error that says so.
pub(crate) fn reply_line<T: Serialize>(reply: &Result<T, String>) -> Vec<u8> {
    let line = |reply: &Result<T, String>| {
        serde_json::to_vec(&ReplyLine {
            version: PROTOCOL_VERSION,
            ok: reply.as_ref().ok(),
            error: reply.as_ref().err().cloned(),
        })
    };
    line(reply)
        .or_else(|error| line(&Err(format!("the answer can't be written as JSON: {error}"))))
        .unwrap_or_default()
}

/// What a host replied: its value, its refusal, or `Err` for a line that is no reply.
pub(crate) fn parse_reply<T: DeserializeOwned>(line: &[u8]) -> Result<Result<T, String>, String> {
    let reply: ReplyLine<T> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    // An error is for people, whatever the version.
    if let Some(error) = reply.error {
        return Ok(Err(error));
    }
    if reply.version != PROTOCOL_VERSION {
        return Err(format!("expected version {PROTOCOL_VERSION}, found {}", reply.version));
    }
    reply.ok.map(Ok).ok_or_else(|| "it is neither `ok` nor `error`".to_owned())
}

#[derive(Serialize, Deserialize)]
struct ReplyLine<T> {
    version: u32,
    #[serde(default = "none", skip_serializing_if = "Option::is_none")]
    ok: Option<T>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

fn none<T>() -> Option<T> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_read_as_it_was_written() {
        let pack = || "german-law".to_owned();
        for request in [
            Request::Status,
            Request::Packs,
            Request::Events { after: u64::MAX, follow: true },
            Request::Pin { pack: pack(), keep: true },
            Request::Priority { pack: pack(), priority: -3 },
            Request::Evict { pack: pack() },
            Request::Clear { pack: pack() },
            Request::Rescan,
        ] {
            let line = request.to_line();
            assert!(line.starts_with(br#"{"version":1,"request":""#), "{}", String::from_utf8_lossy(&line));
            assert_eq!(Request::parse(&line), Ok(request));
        }
    }

    #[test]
    fn what_may_be_left_out_has_its_usual_value() {
        let parsed = Request::parse(br#"{"version":1,"request":"events"}"#);
        assert_eq!(parsed, Ok(Request::Events { after: 0, follow: false }));
    }

    #[test]
    fn refusals_say_what_was_expected_and_found() {
        for (line, words) in [
            (&b"hello"[..], "expected one JSON object a line: "),
            (b"[1]", "another JSON value"),
            (b"{}", "found none"),
            (br#"{"version":2,"request":"status"}"#, "expected \"version\": 1, found 2"),
            (br#"{"version":1}"#, "unknown request (there is none)"),
            (
                br#"{"version":1,"request":"reboot"}"#,
                "unknown request \"reboot\"; expected one of status, packs",
            ),
            (br#"{"version":1,"request":"pin","pack":"a"}"#, "request `pin`: missing field `keep`"),
            (b"\xff", "expected one JSON object a line"),
        ] {
            let message = Request::parse(line).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        }
    }

    #[test]
    fn replies_are_read_as_they_were_written() {
        assert_eq!(parse_reply(&reply_line(&Ok(vec![1, 2]))), Ok(Ok(vec![1, 2])));
        assert_eq!(parse_reply::<bool>(&reply_line::<bool>(&Err("no".to_owned()))), Ok(Err("no".to_owned())));
        assert_eq!(parse_reply::<bool>(br#"{"version":7,"error":"too old"}"#), Ok(Err("too old".to_owned())));
        assert!(parse_reply::<bool>(br#"{"version":7,"ok":true}"#).unwrap_err().contains("found 7"));
        assert!(parse_reply::<bool>(br#"{"version":1}"#).unwrap_err().contains("neither"));
    }
}
