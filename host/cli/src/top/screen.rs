//! The terminal while `top` has it.

use std::io::IsTerminal;

use anyhow::Context;
use ratatui::DefaultTerminal;

use super::picture;
use super::view::View;

/// The alternate screen in raw mode. Whatever ends it, a panic too, leaves the terminal as it was.
pub(super) struct Screen {
    terminal: DefaultTerminal,
}

impl Screen {
    pub(super) fn open() -> anyhow::Result<Self> {
        debug_assert!(std::io::stdout().is_terminal());
        // It also restores the terminal before a panic prints its message.
        let terminal = ratatui::try_init().context("can't take the terminal")?;
        Ok(Self { terminal })
    }

    pub(super) fn draw(&mut self, view: &mut View) -> anyhow::Result<()> {
        self.terminal.draw(|frame| picture::draw(view, frame)).context("can't draw on the terminal")?;
        Ok(())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Err(error) = ratatui::try_restore() {
            tracing::error!(%error, "the terminal may not be as it was; `reset` helps");
        }
    }
}
