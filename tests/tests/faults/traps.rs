//! A locker full of start-up traps: nothing under `/workspace` runs before the sandbox is ready.

use bay_tests::{Bay, Options};
use serde_json::json;

/// Shadows of modules that Python, IPython and ipykernel import.
const MODULES: &[&str] = &[
    "random",
    "os",
    "json",
    "socket",
    "logging",
    "typing",
    "zmq",
    "traitlets",
    "tornado",
    "IPython",
    "ipykernel",
    "sitecustomize",
    "usercustomize",
    "site",
    "encodings",
    "_distutils_hack",
    "readline",
];

#[test]
fn a_locker_full_of_traps_neither_breaks_nor_owns_a_start() {
    let bay = Bay::start(Options::default());
    let api = bay.api();
    let (sandbox, neighbour) = (api.sandbox(json!({})), api.sandbox(json!({ "profile": "shell-only" })));
    let user_site =
        sandbox.python_ok("import sys\nprint('.local/lib/python%d.%d/site-packages' % sys.version_info[:2])");
    let python = |name: &str| {
        format!("open('/workspace/trapped-{name}', 'w').write('x')\nraise SystemExit('trap {name}')\n")
    };
    for module in MODULES {
        sandbox.write(&format!("{module}.py"), &python(module));
        sandbox.write(&format!("{user_site}/{module}.py"), &python(&format!("user-{module}")));
    }
    let pth = "import os; open('/workspace/trapped-pth', 'w').write('x'); os._exit(9)\n";
    for path in ["trap.pth".to_owned(), format!("{user_site}/trap.pth")] {
        sandbox.write(&path, pth);
    }
    for path in [
        ".ipython/profile_default/startup/00-trap.py",
        ".ipython/profile_default/ipython_config.py",
        ".ipython/profile_default/ipython_kernel_config.py",
        ".jupyter/jupyter_config.py",
        ".jupyter/jupyter_kernel_config.py",
        "ipython_config.py",
        "ipython_kernel_config.py",
        ".pythonrc.py",
    ] {
        sandbox.write(path, &python("ipython"));
    }
    for path in
        [".bashrc", ".profile", ".bash_profile", ".bash_login", ".bash_logout", ".shrc", ".zshrc", ".env"]
    {
        sandbox.write(path, "touch /workspace/trapped-shell; exec sleep 1000\n");
    }
    sandbox.write("pyvenv.cfg", "home = /workspace\ninclude-system-site-packages = false\n");
    for tool in ["python3", "bash", "sh", "ls"] {
        let fake = json!({ "path": tool, "content": "#!/bin/sh\ntouch /workspace/trapped-tool\nexit 9\n", "mode": 0o755 });
        sandbox.write_with(fake).send().expect(200);
    }
    // What has the wrong kind or rights where something likes to write.
    sandbox.shell_ok("mkfifo .bash_history .inputrc .python_history; mkdir -m 000 .cache .config; ln -s /dev/zero .matplotlib");
    assert_eq!(sandbox.post("stop", &json!({})).send().expect(200)["status"], "stopped");

    let ran =
        sandbox.python("import random, json, os\nprint(os.getcwd(), random.__file__.startswith('/usr'))");
    assert_eq!((&ran["success"], &ran["session_seq"]), (&json!(true), &json!(2)), "{ran}");
    assert_eq!(ran["output"].as_str().map(str::trim), Some("/workspace True"), "{ran}");
    assert_eq!(sandbox.shell_ok("echo shell"), "shell");
    assert_eq!(sandbox.shell_ok("set -- trapped-*; echo $1"), "trapped-*", "a trap ran");
    // It is still user code's own choice to run what lies there.
    assert_eq!(sandbox.shell("./python3")["exit_code"], 9);
    neighbour.unharmed();
}
