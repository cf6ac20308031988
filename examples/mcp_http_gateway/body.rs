//! Bodies of HTTP messages: read up to a bound, sent whole or as they come.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;

use crate::finish::Finish;

/// A body that is there already.
pub(crate) struct Whole(Option<Bytes>);

impl Whole {
    pub(crate) fn new(bytes: impl Into<Bytes>) -> Self {
        Self(Some(bytes.into()).filter(|bytes| !bytes.is_empty()))
    }
}

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

/// What the client gets.
pub(crate) enum Reply {
    Whole(Whole),
    /// Pieces, and the work that makes them, which notices when the client has gone.
    Stream(mpsc::Receiver<Bytes>, Finish<()>),
    /// The server's own, as it comes.
    Passed(Incoming),
}

impl Reply {
    pub(crate) fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    pub(crate) fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Whole::new(bytes))
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self {
            Self::Whole(whole) => {
                let frame = ready!(Pin::new(whole).poll_frame(context));
                Poll::Ready(frame.and_then(Result::ok).map(Ok))
            }
            Self::Stream(pieces, work) => {
                work.go_on(context);
                Poll::Ready(ready!(pieces.poll_recv(context)).map(|bytes| Ok(Frame::data(bytes))))
            }
            Self::Passed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(whole) => whole.is_end_stream(),
            Self::Stream(..) => false,
            Self::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(whole) => whole.size_hint(),
            Self::Stream(..) => SizeHint::default(),
            Self::Passed(body) => body.size_hint(),
        }
    }
}

/// Why a body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    TooLong,
    Broken,
}

/// The next bytes; none at the end.
pub(crate) async fn next(body: &mut Incoming) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        match poll_fn(|context| Pin::new(&mut *body).poll_frame(context)).await? {
            Ok(frame) => {
                // Trailers are passed over.
                if let Ok(bytes) = frame.into_data() {
                    return Some(Ok(bytes));
                }
            }
            Err(error) => return Some(Err(error)),
        }
    }
}

/// The whole body, of at most so many bytes. What is longer is not kept.
pub(crate) async fn whole(body: &mut Incoming, bound: usize) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > bound as u64 {
        return Err(Unread::TooLong);
    }
    let Some(first) = next(body).await else { return Ok(Bytes::new()) };
    let first = first.map_err(|_| Unread::Broken)?;
    if first.len() > bound {
        return Err(Unread::TooLong);
    }
    // Most messages come in one piece.
    if body.is_end_stream() {
        return Ok(first);
    }
    let mut all = Vec::from(first);
    while let Some(more) = next(body).await {
        let more = more.map_err(|_| Unread::Broken)?;
        if all.len() + more.len() > bound {
            return Err(Unread::TooLong);
        }
        all.extend_from_slice(&more);
    }
    Ok(all.into())
}
