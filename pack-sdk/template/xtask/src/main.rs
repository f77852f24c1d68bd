//! `cargo xtask pack build` and `cargo xtask pack verify`, as in ModularBase itself.

fn main() -> std::process::ExitCode {
    xtask::main()
}
