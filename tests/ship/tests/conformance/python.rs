//! `python`: state, results, errors, and where code lives.

use std::time::{Duration, Instant};

use bay_ship_tests::{Place, wait_for};
use serde_json::json;

crate::cases! {
    python_keeps_its_state_and_shows_results_displays_and_errors,
    python_asks_nobody_for_input,
    python_lives_in_the_workspace_and_imports_from_it_last,
}

pub(crate) fn python_keeps_its_state_and_shows_results_displays_and_errors(place: &dyn Place) {
    let client = &mut place.client();
    assert_eq!(client.python_ok("x = 20\nprint('set')"), "set");
    let answer = client.python("x + 22");
    assert_eq!((answer.output.as_str(), answer.data.execution_count), ("42", Some(2)));
    assert_eq!(answer.data.output.results, [json!({"text/plain": "42"})]);
    assert_eq!((answer.kernel_seq, answer.truncated, answer.timed_out), (1, false, false));

    let answer = client.python("print('before')\nraise ValueError('no \\N{SNOWMAN}')");
    assert!(!answer.success);
    assert_eq!(answer.output, "before\n");
    let (detail, error) = (answer.error_detail.unwrap(), answer.error.unwrap());
    assert_eq!((detail.name.as_str(), detail.value.as_str()), ("ValueError", "no ☃"));
    assert!(error.contains("ValueError: no ☃") && !error.contains('\u{1b}'), "{error}");

    let png =
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
    let code = format!(
        "from IPython.display import Image, HTML, display\nimport base64\n\
             display(Image(data=base64.b64decode('{png}')))\ndisplay(HTML('<b>x</b>'))"
    );
    let answer = client.python(&code);
    assert_eq!(answer.data.output.images.len(), 1, "{answer:?}");
    assert_eq!(answer.data.output.images[0]["image/png"].as_str().unwrap().trim(), png);
    assert!(answer.data.output.results.iter().any(|bundle| bundle["text/html"] == "<b>x</b>"), "{answer:?}");

    let answer = client.python("import sys; print('seen', file=sys.stderr)");
    assert!(answer.success && answer.output.contains("seen"));
    // What a child writes comes to the kernel by a pipe, and so, rarely, after the end of the call: still told.
    let said = client.python_ok("import os; _ = os.system('echo from a child')");
    if said != "from a child" {
        assert_eq!(said, "");
        wait_for(|| client.kernel().late_output.tail.contains("from a child").then_some(()), "the child's");
    }
    let answer = client.python("def broken(:");
    assert_eq!(answer.error_detail.unwrap().name, "SyntaxError");
}

pub(crate) fn python_asks_nobody_for_input(place: &dyn Place) {
    let client = &mut place.client();
    let began = Instant::now();
    let answer = client.python("input('name? ')");
    assert!(!answer.success && began.elapsed() < Duration::from_secs(20));
    assert!(answer.error.unwrap().contains("does not support input"), "{:?}", answer.error_detail);
}

pub(crate) fn python_lives_in_the_workspace_and_imports_from_it_last(place: &dyn Place) {
    let client = &mut place.client();
    let write = json!({"path": "mymodule.py", "content": "VALUE = 'mine'"});
    client.post("/fs/write_file", &write).unwrap();
    assert_eq!(client.python_ok("import os; print(os.getcwd())"), "/workspace");
    assert_eq!(client.python_ok("import mymodule; print(mymodule.VALUE)"), "mine");
    assert_eq!(client.python_ok("import sys; print(sys.path[-1], '' in sys.path)"), "/workspace False");
    assert_eq!(
        client.python_ok("print(os.environ['GREETING'], os.environ['HOME'])"),
        "from the profile /workspace"
    );
    let names = client.python_ok("print([n for n in dir() if not n.startswith('_')])");
    assert_eq!(names, "['In', 'Out', 'exit', 'get_ipython', 'mymodule', 'open', 'os', 'quit', 'sys']");
}
