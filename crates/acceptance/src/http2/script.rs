//! What a case sends and waits for, as plain steps: a case is written down before anything runs, so
//! that the same one can be played against any server and read by anybody.

use super::Target;
use super::frame::{Frame, PREFACE, flag, kind};
use super::hpack::Block;

/// One step.
#[derive(Clone, Debug)]
pub(super) enum Step {
    Send(Vec<u8>),
    /// Waits for it; a server that ends the connection meanwhile is judged as it is.
    Await(Event),
    /// Waits until so many bytes of body came on the stream, and sees that no more do while a PING
    /// goes there and back.
    Exactly {
        stream: u32,
        body_bytes: usize,
    },
}

/// What can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The final head of the answer.
    Head(u32),
    /// The end of the answer, or of the stream.
    End(u32),
    /// A PING with this payload came back.
    Pong([u8; 8]),
    /// So many of our SETTINGS were acknowledged; the first one is of the handshake.
    SettingsAcks(usize),
}

/// The steps of a case, and what the case may know of the server.
#[derive(Debug)]
pub(super) struct Script {
    pub(super) steps: Vec<Step>,
    pub(super) scheme: &'static str,
    pub(super) authority: String,
    pub(super) get_path: String,
    pub(super) large_path: String,
    pub(super) post_path: String,
    pub(super) post_body: String,
    /// The largest frame and the first window that the server announced.
    pub(super) frame_bytes_max: usize,
    pub(super) window: u32,
    pub(super) streams_max: Option<u32>,
}

impl Script {
    pub(super) fn new(target: &Target) -> Self {
        Self {
            steps: Vec::new(),
            scheme: if target.tls.is_some() {
                "https"
            } else {
                "http"
            },
            authority: target.authority.clone(),
            get_path: target.get_path.clone(),
            large_path: target.large_path.clone(),
            post_path: target.post_path.clone(),
            post_body: target.post_body.clone(),
            frame_bytes_max: 16_384,
            window: 65_535,
            streams_max: None,
        }
    }

    pub(super) fn raw(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        let bytes = bytes.into();
        // One write for what belongs together: the server then sees it together.
        if let Some(Step::Send(last)) = self.steps.last_mut() {
            last.extend(bytes);
        } else {
            self.steps.push(Step::Send(bytes));
        }
        self
    }

    pub(super) fn frame(
        &mut self,
        kind: u8,
        flags: u8,
        stream: u32,
        payload: impl Into<Vec<u8>>,
    ) -> &mut Self {
        self.raw(Frame::new(kind, flags, stream, payload).encode())
    }

    /// The preface and an empty SETTINGS.
    pub(super) fn greeting(&mut self) -> &mut Self {
        self.raw(PREFACE).frame(kind::SETTINGS, flag::NONE, 0, [])
    }

    pub(super) fn wait(&mut self, event: Event) -> &mut Self {
        self.steps.push(Step::Await(event));
        self
    }

    pub(super) fn exactly(&mut self, stream: u32, body_bytes: usize) -> &mut Self {
        self.steps.push(Step::Exactly { stream, body_bytes });
        self
    }

    /// The fields of a plain GET.
    pub(super) fn get_fields(&self) -> Fields {
        self.fields("GET", &self.get_path)
    }

    /// The fields of the POST of the target, without a length.
    pub(super) fn post_fields(&self) -> Fields {
        let fields = self.fields("POST", &self.post_path);
        fields.with("content-type", "application/json")
    }

    pub(super) fn fields(&self, method: &str, path: &str) -> Fields {
        Fields::default()
            .with(":method", method)
            .with(":scheme", self.scheme)
            .with(":authority", &self.authority)
            .with(":path", path)
    }

    /// A whole GET.
    pub(super) fn get(&mut self, stream: u32) -> &mut Self {
        let fields = self.get_fields();
        self.request(stream, &fields)
    }

    /// A whole request without a body.
    pub(super) fn request(&mut self, stream: u32, fields: &Fields) -> &mut Self {
        self.whole(stream, fields.block())
    }

    /// A whole request of this block.
    pub(super) fn whole(&mut self, stream: u32, block: Block) -> &mut Self {
        self.frame(
            kind::HEADERS,
            flag::END_HEADERS | flag::END_STREAM,
            stream,
            block.bytes(),
        )
    }

    /// The head of a request whose body follows.
    pub(super) fn head(&mut self, stream: u32, fields: &Fields) -> &mut Self {
        self.frame(
            kind::HEADERS,
            flag::END_HEADERS,
            stream,
            fields.block().bytes(),
        )
    }

    /// The head of the POST; its body follows.
    pub(super) fn post(&mut self, stream: u32) -> &mut Self {
        let fields = self.post_fields();
        self.head(stream, &fields)
    }

    /// The body of the POST, with or without the end.
    pub(super) fn post_body(&mut self, stream: u32, flags: u8) -> &mut Self {
        let body = self.post_body.clone();
        self.frame(kind::DATA, flags, stream, body)
    }

    pub(super) fn settings(&mut self, pairs: &[(u16, u32)]) -> &mut Self {
        let bytes: Vec<u8> = pairs
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()[..]].concat())
            .collect();
        self.frame(kind::SETTINGS, flag::NONE, 0, bytes)
    }

    pub(super) fn window_update(&mut self, stream: u32, increment: u32) -> &mut Self {
        self.frame(
            kind::WINDOW_UPDATE,
            flag::NONE,
            stream,
            increment.to_be_bytes(),
        )
    }

    pub(super) fn reset(&mut self, stream: u32, code: u32) -> &mut Self {
        self.frame(kind::RST_STREAM, flag::NONE, stream, code.to_be_bytes())
    }

    pub(super) fn ping(&mut self, payload: [u8; 8]) -> &mut Self {
        self.frame(kind::PING, flag::NONE, 0, payload)
    }

    pub(super) fn priority(&mut self, stream: u32, depends_on: u32) -> &mut Self {
        let [a, b, c, d] = depends_on.to_be_bytes();
        self.frame(kind::PRIORITY, flag::NONE, stream, [a, b, c, d, 15])
    }
}

/// The fields of a request in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields(Vec<(String, Vec<u8>)>);

impl Fields {
    pub(super) fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.push((name.to_owned(), value.as_ref().to_vec()));
        self
    }

    /// Before all others.
    pub(super) fn first(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.insert(0, (name.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub(super) fn without(mut self, name: &str) -> Self {
        self.0.retain(|(known, _)| known != name);
        self
    }

    /// Another value in the same place.
    pub(super) fn set(mut self, name: &str, value: &str) -> Self {
        for (_, old) in self.0.iter_mut().filter(|(known, _)| known == name) {
            *old = value.as_bytes().to_vec();
        }
        self
    }

    pub(super) fn block(&self) -> Block {
        self.0
            .iter()
            .fold(Block::default(), |block, (name, value)| {
                block.plain(name, value)
            })
    }
}
