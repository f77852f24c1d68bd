//! Answers whose packs the router chooses: the shipped packs on the real base.

mod again;
mod nearest;
mod place;
mod posterior;
