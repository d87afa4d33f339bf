use proptest::prelude::*;

use super::*;

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(format!("(component {text})")).unwrap()
}

fn exporting(name: &str) -> Vec<u8> {
    component(&format!(r#"(instance $i) (export "{name}" (instance $i))"#))
}

fn problem(bytes: &[u8]) -> String {
    role(bytes).unwrap_err()
}

#[test]
fn a_role_is_read_from_the_export_name() {
    assert_eq!(role(&exporting("bay:plugin/rules@0.1.0")), Ok(Role::Rules));
    assert_eq!(role(&exporting("bay:plugin/router@0.1.0")), Ok(Role::Router));
    assert_eq!(role(&exporting("bay:plugin/adapter@0.1.0")), Ok(Role::Adapter));
}

#[test]
fn names_inside_nested_components_and_modules_do_not_count() {
    let nested = component(
        r#"(component (instance $i) (export "bay:plugin/adapter@0.1.0" (instance $i)))
           (core module (export "bay:plugin/router@0.1.0" (func 0)) (func))
           (instance $i) (export "bay:plugin/rules@0.1.0" (instance $i))"#,
    );
    assert_eq!(role(&nested), Ok(Role::Rules));
}

#[test]
fn a_newer_version_says_that_bay_is_too_old() {
    for newer in ["0.2.0", "0.1.1", "1.0.0"] {
        let words = problem(&exporting(&format!("bay:plugin/rules@{newer}")));
        assert!(words.contains(newer) && words.contains("this Bay speaks 0.1.0"), "{words}");
        assert!(words.contains("upgrade Bay"), "{words}");
    }
}

#[test]
fn an_older_or_missing_version_says_what_to_build_against() {
    let words = problem(&exporting("bay:plugin/rules@0.0.9"));
    assert!(words.contains("0.0.9") && words.contains("build the plugin against a `wit/` folder"), "{words}");
    let words = problem(&exporting("bay:plugin/rules"));
    assert!(words.contains("without a version"), "{words}");
}

#[test]
fn what_is_no_plugin_says_what_it_exports() {
    let words = problem(&exporting("wasi:cli/run@0.2.3"));
    assert!(words.contains("not a plugin") && words.contains("wasi:cli/run@0.2.3"), "{words}");
    assert!(problem(&component("")).contains("it exports nothing"));
    let words = problem(&exporting("bay:plugin/gateway@0.1.0"));
    assert!(words.contains("a role that Bay does not know"), "{words}");
}

#[test]
fn two_roles_in_one_component_are_refused() {
    let both = component(
        r#"(instance $i) (export "bay:plugin/rules@0.1.0" (instance $i))
           (export "bay:plugin/router@0.1.0" (instance $i))"#,
    );
    assert!(problem(&both).contains("several roles"));
}

#[test]
fn an_import_that_bay_does_not_provide_is_named() {
    for import in
        ["wasi:http/outgoing-handler@0.2.3", "acme:tools/db@1.0.0", "wasi:cli/environment@0.3.0", "plain"]
    {
        let bytes = component(&format!(
            r#"(import "{import}" (instance)) (instance $i) (export "bay:plugin/rules@0.1.0" (instance $i))"#
        ));
        let words = problem(&bytes);
        assert!(words.contains(&format!("imports `{import}`, which Bay does not provide")), "{words}");
    }
    let bytes = component(
        r#"(import "wasi:cli/environment@0.2.9" (instance)) (import "bay:plugin/types@0.1.0" (instance))
           (instance $i) (export "bay:plugin/rules@0.1.0" (instance $i))"#,
    );
    assert_eq!(role(&bytes), Ok(Role::Rules));
}

#[test]
fn a_core_module_and_other_bytes_are_told_apart() {
    assert!(problem(b"\0asm\x01\0\0\0").contains("core module"));
    assert!(problem(b"#!/bin/sh\n").contains("not a WebAssembly component"));
    assert!(problem(b"").contains("not a WebAssembly component"));
    let whole = exporting("bay:plugin/rules@0.1.0");
    assert!(problem(&whole[..whole.len() - 3]).contains("not a WebAssembly component"));
}

#[test]
fn bays_own_components_have_their_roles() {
    let expected = [Role::Rules, Role::Router, Role::Adapter];
    for ((name, bytes), expected) in bay_embedded::COMPONENTS.iter().zip(expected) {
        assert_eq!(role(bytes), Ok(expected), "{name}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..400), at in 0usize..400) {
        let _ = role(&bytes);
        // And damage to a real one.
        let mut real = exporting("bay:plugin/rules@0.1.0");
        let at = at % real.len();
        real[at] = bytes.pop().unwrap_or(0);
        let _ = role(&real);
    }
}
