//! What user code does to break out of its bounds; the neighbour must not notice.

use super::super::*;
use super::harness::*;

#[tokio::test]
async fn a_fork_bomb_stays_within_its_processes() {
    let bay = Bay::new();
    if !bay.driver.enforces_limits() {
        // Then it is init's rlimits that bound it, which the stand-in does not set; the driver must say so.
        assert!(bay.driver.features().limits.contains("rlimits"));
        assert!(bay.driver.features().notes.iter().any(|note| note.contains("rlimits")));
        return;
    }
    let bomb = bay.run("bomb").await;
    let neighbour = bay.run("neighbour").await;
    let code = "import os, time\n\
        made = []\n\
        try:\n\
        \x20   while len(made) < 100000:\n\
        \x20       made.append(os.fork())\n\
        \x20       if made[-1] == 0:\n\
        \x20           time.sleep(600)\n\
        except OSError as error:\n\
        \x20   answer = [len(made), error.errno]\n\
        for pid in made:\n\
        \x20   os.kill(pid, 9)\n";
    let answer = bay.user(&bomb, code).await;
    let made = answer[0].as_u64().unwrap();
    assert!((16..128).contains(&made), "{answer}");
    assert_eq!(answer[1], 11, "EAGAIN");
    assert_eq!(bay.user(&neighbour, "import os\nanswer = os.system('true')").await, 0);
    bay.driver.stop(&bomb, Duration::ZERO).await.unwrap();
}

#[tokio::test]
async fn a_memory_hog_is_killed_and_the_status_says_so() {
    let bay = Bay::new();
    if !bay.driver.enforces_limits() {
        return; // Address space is bounded by init's rlimits, see above.
    }
    let mut small = spec("hog");
    small.memory = 64 << 20;
    bay.driver.volume_create("lkr-hog").await.unwrap();
    let container = bay.run_with(&small, &config()).await;
    let neighbour = bay.run("neighbour").await;
    // Init itself takes it, so that the whole sandbox ends.
    let driver = bay.driver.clone();
    let hog = container.clone();
    tokio::spawn(async move {
        let mut stream = driver.dial(&hog, 1).await.unwrap();
        let request = b"{\"code\": \"x = bytearray(512 << 20)\"}\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.unwrap();
        let mut reply = Vec::new();
        let _ = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut reply).await;
    });
    let status = tokio::time::timeout(PATIENCE, bay.driver.wait(&container)).await.unwrap().unwrap();
    assert_eq!(status, ContainerStatus::Exited { reason: "out of memory".to_owned() });
    assert_eq!(bay.init(&neighbour, "answer = 1").await, 1);
}

#[tokio::test]
async fn temporary_files_count_as_memory_and_are_bounded() {
    let bay = Bay::new();
    let container = bay.run("full").await;
    let code = "import errno\n\
        answer = {}\n\
        for place in ['/tmp', '/var/tmp', '/dev/shm']:\n\
        \x20   size = 0\n\
        \x20   try:\n\
        \x20       with open(place + '/x', 'wb', buffering=0) as f:\n\
        \x20           while size < (1 << 30):\n\
        \x20               size += f.write(bytes(1 << 20))\n\
        \x20   except OSError as error:\n\
        \x20       answer[place] = [errno.errorcode[error.errno], size >> 20]\n\
        \x20   import os; os.remove(place + '/x')\n";
    let answer = bay.user(&container, code).await;
    for place in ["/tmp", "/var/tmp", "/dev/shm"] {
        assert_eq!(answer[place][0], "ENOSPC", "{answer}");
        assert!(answer[place][1].as_u64().unwrap() <= 128, "{answer}");
    }
}

#[tokio::test]
async fn user_code_cannot_signal_or_trace_init() {
    if !is_root() {
        return; // With one identity it is Ship's nested namespace that hides init.
    }
    let bay = Bay::new();
    let container = bay.run("tracer").await;
    let code = "import ctypes, os\n\
        libc = ctypes.CDLL(None, use_errno=True)\n\
        def kill():\n\
        \x20   try: os.kill(1, 9); return 'killed'\n\
        \x20   except OSError as e: return e.errno\n\
        def read(path):\n\
        \x20   try: open(path, 'rb').read(1); return 'read'\n\
        \x20   except OSError as e: return 'refused'\n\
        answer = [kill(), libc.ptrace(16, 1, 0, 0), read('/proc/1/mem'), read('/proc/1/environ'), os.path.exists('/proc/1/fd/3')]\n";
    assert_eq!(bay.user(&container, code).await, serde_json::json!([1, -1, "refused", "refused", false]));
}

#[tokio::test]
async fn many_start_at_once() {
    let bay = Bay::new();
    let mut tasks = Vec::new();
    for number in 0..8 {
        let driver = bay.driver.clone();
        tasks.push(tokio::spawn(async move {
            let spec = spec(&format!("many-{number}"));
            driver.volume_create(&spec.volume).await.unwrap();
            let container = driver.create(&spec).await.unwrap();
            let container = driver.start(&container, &spec, &config()).await.unwrap();
            ask(&driver, &container, "answer = 1", false).await;
            container
        }));
    }
    for task in tasks {
        bay.driver.destroy(&task.await.unwrap()).await.unwrap();
    }
    assert!(bay.driver.list().await.unwrap().is_empty());
}
