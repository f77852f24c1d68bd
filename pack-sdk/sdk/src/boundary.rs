//! The pack's side of the border: where a call from the host enters, and where every unwind ends.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook, take_hook},
    sync::{Arc, Mutex, PoisonError},
};

use abi_stable::std_types::{RErr, ROk, RStr};
use pack_abi::{AbiResult, ErrorCode, Graph, HostApi_Ref, PackInfo};
use serde::de::DeserializeOwned;

use crate::{Config, Error, Host};

/// Something [`crate::export_pack!`] can export. `Form` only tells the kinds of exports apart.
pub trait BuildGraph<Form> {
    /// Describes the pack's network for the base that `config` (JSON) shows.
    ///
    /// # Errors
    /// What makes the pack unfit for that base or configuration.
    fn build_graph(&self, host: &Host<'_>, config: &str) -> Result<Graph, Error>;
}

/// A ready-made pack, for example [`crate::LlamaExpert`].
pub enum WholePack {}
/// A function of the configuration.
pub struct FromConfig<Settings>(std::marker::PhantomData<Settings>);
/// A function of the host and the configuration.
pub struct FromHostAndConfig<Settings>(std::marker::PhantomData<Settings>);

impl<F, Settings> BuildGraph<FromConfig<Settings>> for F
where
    F: Fn(&Config<Settings>) -> Result<Graph, Error>,
    Settings: DeserializeOwned,
{
    fn build_graph(&self, _host: &Host<'_>, config: &str) -> Result<Graph, Error> {
        self(&Config::from_json(config)?)
    }
}

impl<F, Settings> BuildGraph<FromHostAndConfig<Settings>> for F
where
    F: Fn(&Host<'_>, &Config<Settings>) -> Result<Graph, Error>,
    Settings: DeserializeOwned,
{
    fn build_graph(&self, host: &Host<'_>, config: &str) -> Result<Graph, Error> {
        self(host, &Config::from_json(config)?)
    }
}

/// Body of the exported `build`: an unwind becomes an error whose message holds the panic's text and place.
pub fn build<Form>(pack: &impl BuildGraph<Form>, host: HostApi_Ref, config: RStr<'_>) -> AbiResult<Graph> {
    match without_unwind(|| pack.build_graph(&Host::new(host), config.as_str())) {
        Ok(graph) => ROk(graph),
        Err(error) => RErr(error.into()),
    }
}

/// Body of the exported `info`.
pub fn info(name: &str, version: &str) -> PackInfo {
    PackInfo {
        name: name.into(),
        version: version.into(),
        rustc: pack_abi::RUSTC.into(),
        sdk_version: env!("CARGO_PKG_VERSION").into(),
    }
}

fn without_unwind<T>(body: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    // std's own hook prints through `thread::current()`, whose thread-local destructor keeps the library mapped until
    // the thread ends. This hook keeps the place of the panic instead, and is gone before the host closes the library.
    let place = Arc::new(Mutex::new(None));
    let in_hook = Arc::clone(&place);
    set_hook(Box::new(move |info: &PanicHookInfo<'_>| {
        *in_hook.lock().unwrap_or_else(PoisonError::into_inner) = info.location().map(ToString::to_string);
    }));
    let result = catch_unwind(AssertUnwindSafe(body));
    drop(take_hook());
    result.unwrap_or_else(|payload| {
        let place = place.lock().unwrap_or_else(PoisonError::into_inner).take();
        let message = format!("panicked at {}: {}", place.as_deref().unwrap_or("?"), panic_text(&*payload));
        // Dropping a payload may run the author's code and panic again; let that one go.
        if let Err(second) = catch_unwind(AssertUnwindSafe(move || drop(payload))) {
            std::mem::forget(second);
        }
        Err(Error { code: ErrorCode::PANIC, message })
    })
}

fn panic_text(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("(no text)")
}

/// Exports a pack: the ELF note, the root module's header, and `info` and `build` behind a guard against unwinding.
///
/// Takes a ready-made pack (`export_pack!(LlamaExpert)`), a function of the configuration
/// (`fn(&Config<S>) -> Result<Graph, Error>`) or of the host and the configuration
/// (`fn(&Host<'_>, &Config<S>) -> Result<Graph, Error>`). Use it once in a `cdylib` crate.
#[macro_export]
macro_rules! export_pack {
    ($pack:expr) => {
        const _: () = {
            use $crate::export::{abi_stable, pack_abi};

            assert!(
                cfg!(panic = "unwind"),
                "a pack must be built with panic = \"unwind\": an abort would end the host's process"
            );

            // Found by the host in the file, before any code of the library runs.
            #[used]
            #[unsafe(link_section = ".note.modularbase.pack")]
            static ABI_NOTE: pack_abi::AbiNote = pack_abi::AbiNote::current();

            // Items are not hygienic: an author's own `build` or `info` must not be shadowed in `$pack`.
            extern "C" fn __exported_info() -> pack_abi::PackInfo {
                $crate::export::info(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
            }

            extern "C" fn __exported_build(
                host: pack_abi::HostApi_Ref,
                config: abi_stable::std_types::RStr<'_>,
            ) -> pack_abi::AbiResult<pack_abi::Graph> {
                $crate::export::build(&$pack, host, config)
            }

            // A constant: `leak_into_prefix` would leak an allocation at each load.
            struct __ExportedModule;
            impl __ExportedModule {
                const WITH_METADATA: &'static abi_stable::prefix_type::WithMetadata<pack_abi::PackModule> =
                    &abi_stable::prefix_type::WithMetadata::new(pack_abi::PackModule {
                        info: __exported_info,
                        build: __exported_build,
                        extension: abi_stable::std_types::ROption::RNone,
                    });
            }

            fn __exported_root_module() -> pack_abi::PackModule_Ref {
                pack_abi::PackModule_Ref(__ExportedModule::WITH_METADATA.static_as_prefix())
            }

            // What `#[export_root_module]` expands to; written out so that authors need not depend on abi_stable.
            #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
            static LIBRARY_HEADER: abi_stable::library::LibHeader = {
                extern "C" fn load() -> abi_stable::library::RootModuleResult {
                    abi_stable::library::__call_root_module_loader(__exported_root_module)
                }
                // SAFETY: `load` gives a `PackModule_Ref`, the type the header is made for.
                unsafe {
                    abi_stable::library::LibHeader::from_constructor::<pack_abi::PackModule_Ref>(
                        load,
                        abi_stable::library::CheckTypeLayout::Yes,
                    )
                }
            };
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hook is the process's, and tests run side by side; a host asks one pack at a time.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn the_export_has_the_name_the_host_looks_for() {
        // `export_name` takes a literal only.
        assert_eq!(abi_stable::library::ROOT_MODULE_LOADER_NAME, "_1as_0lib_1header_0root_bmodule_bloader");
        assert_eq!(pack_abi::NOTE_SECTION, ".note.modularbase.pack");
    }

    #[test]
    fn a_panic_becomes_an_error_with_its_text_and_place() {
        let _turn = ONE_AT_A_TIME.lock().unwrap();
        let error = without_unwind::<()>(|| panic!("rank {} is odd", 7)).unwrap_err();
        assert_eq!(error.code, ErrorCode::PANIC);
        assert!(error.message.contains("rank 7 is odd") && error.message.contains("boundary.rs:"), "{error}");
        let error = without_unwind::<()>(|| std::panic::panic_any(42u8)).unwrap_err();
        assert!(error.message.ends_with("(no text)"), "{error}");
    }

    #[test]
    fn a_payload_that_panics_when_dropped_does_not_unwind() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("again");
            }
        }
        let _turn = ONE_AT_A_TIME.lock().unwrap();
        assert!(without_unwind::<()>(|| std::panic::panic_any(Bomb)).is_err());
    }
}
