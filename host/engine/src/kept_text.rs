//! Sessions whose text outlives the process.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use manifests::MixtureChoice;
use modularbase_context::{SavedTurn, Session as KeptSession, Sessions};
use modularbase_residency::Owner;

use crate::{ContextReport, EngineError, Host, Session, parked_caches::Parked};

/// Where a session's text is kept.
pub(crate) struct KeptText {
    session: KeptSession,
    /// What its owner wrote down when it was saved last, until it is taken.
    note: Option<String>,
    /// What had to be given up, not told yet.
    pub(crate) notices: Vec<String>,
}

impl<'a> Session<'a> {
    /// Opens the session `name`, or makes it: its text goes on where it was saved, without being computed again. A new
    /// one begins with what other sessions have of the text `prefix`, and its first `first` tokens never leave its window,
    /// as in [`Session::keeping`]; of one that goes on those that it began with don't.
    ///
    /// Where caches are damaged or of other packs, what is missing is computed again in the next answer;
    /// [`Session::take_notices`] says so.
    ///
    /// # Errors
    /// A host whose texts stay in no window, a session that another process has, that another base or other options
    /// made, or whose text is damaged; not enough memory.
    pub fn open(
        host: &'a Host,
        choice: MixtureChoice,
        sessions: &Sessions,
        name: &str,
        prefix: &[u32],
        first: usize,
    ) -> Result<Self, EngineError> {
        let Some(mut options) = host.options_keeping(first)? else {
            return Err(EngineError::Option(
                "a session is kept where texts stay in a window: [context] enabled = true".to_owned(),
            ));
        };
        if let Some(saved) = sessions.settings(name)? {
            options.sinks = saved.options.sinks;
        }
        let mut kept = sessions.open(name, &host.kv_identity(), &options, prefix)?;
        let mut notices = kept.notices().to_vec();
        let mut sequence = host.sequence_with(&options, Arc::clone(kept.store()))?;
        let mut memory = host.reserve(Owner::Kv, 0)?;
        let parking = host.parking_place();
        let mut note = None;
        if let Some(SavedTurn { tokens, note: saved, parts }) = kept.take_saved() {
            note = Some(saved);
            if !parts.is_empty() {
                // What is read, and the caches that are made of it.
                let read: u64 = parts.iter().map(|(_, bytes)| bytes.len() as u64).sum();
                host.grow(&mut memory, 2 * read)?;
                match sequence.restore_caches(host.core(), &tokens, parts) {
                    Ok(restored) => {
                        let front = sequence.bytes() as u64;
                        let behind = restored.behind.as_ref().map_or(0, |caches| caches.bytes() as u64);
                        host.grow(&mut memory, front + behind)?;
                        if let (Some(caches), Some(memory)) = (restored.behind, memory.split(behind)) {
                            parking.put(Parked { caches, memory });
                        }
                    }
                    Err(error) => notices.push(format!("{error}: its text is read again")),
                }
            }
        }
        if sequence.tokens().is_empty() {
            kept.store().truncate(0);
            // Less than before: it can't fail.
            let _ = memory.resize(0);
        }
        let context = ContextReport::of(&sequence);
        let kept = Some(KeptText { session: kept, note, notices });
        Ok(Self { host, chosen: choice.into(), sequence, memory, parking, context, kept })
    }

    /// What was noted when the session that was opened was saved last, once; `None` for a new one, and where nothing is
    /// kept.
    pub fn take_note(&mut self) -> Option<String> {
        self.kept.as_mut()?.note.take()
    }

    /// What had to be given up since this was asked last, and why; for people.
    pub fn take_notices(&mut self) -> Vec<String> {
        self.kept.as_mut().map(|kept| std::mem::take(&mut kept.notices)).unwrap_or_default()
    }

    /// Reads a text, given as all tokens from its start, without answering. Gives the number of tokens that had to be
    /// computed.
    ///
    /// # Errors
    /// As [`Session::answer`].
    pub fn read(&mut self, text: &[u32], cancel: &AtomicBool) -> Result<usize, EngineError> {
        let limits = crate::AnswerLimits { max_tokens: 0, stop: Vec::new() };
        let answer =
            self.answer(text, &modularbase_core::SamplingOptions::default(), &limits, cancel, &mut |_| {})?;
        Ok(answer.prompt_tokens - answer.reused_tokens)
    }

    /// Saves the text as it is now with a note: the next process goes on here. Sessions to come may begin with it where
    /// it is saved `as_prefix`. Does nothing where nothing is kept.
    ///
    /// # Errors
    /// A disk that is full or fails, files of the session that were deleted. What was saved before still is.
    pub fn save(&mut self, note: &str, as_prefix: bool) -> Result<(), EngineError> {
        let Some(kept) = &mut self.kept else { return Ok(()) };
        let parked = self.parking.take();
        let saved = self
            .sequence
            .kept_caches(parked.as_ref().map(|parked| &parked.caches))
            .map_err(EngineError::from);
        let saved = saved.and_then(|parts| {
            let parts: Vec<(&str, &[u8])> =
                parts.iter().map(|(name, bytes)| (name.as_str(), bytes.as_ref())).collect();
            Ok(kept.session.save(note, &parts, as_prefix)?)
        });
        if let Some(parked) = parked {
            self.parking.put(parked);
        }
        saved
    }
}
