"""`sendense-hub init` and `db` on both engines, as commands."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from sqlalchemy import make_url, text
from tenacity import Retrying, stop_after_delay, wait_fixed
from typer.testing import CliRunner, Result

from hub import cli
from hub.catalog import hub_lock
from hub.catalog.engine import Catalog, newest_revision
from hub.catalog.hub_lock import HubLock
from hub.catalog.repositories import all_repositories
from hub.config import HubSettings, catalog_of, load_hub_settings, warn_of_configuration
from hub.jobs.manage_repositories import delete_repository, rename_repository
from hub.jobs.parts import Parts
from hub.jobs.repositories import create_repository
from hub.main import Hub
from shared.errors import SendenseError
from tests.mariadb_server import MariadbServer
from tests.unit.hub.fake_agent import FakeAgent, FakeDisk, FakeVm
from tests.unit.hub.running_hub import RunningHub

PROGRAM = [sys.executable, "-m", "hub.cli"]
SECRET = "not-for-the-log"


@pytest.fixture(params=["sqlite", pytest.param("mariadb", marks=pytest.mark.mariadb)])
def where(request: pytest.FixtureRequest) -> Iterator[list[str]]:
    """The options of `init` that say where the catalog is to be."""
    if request.param == "sqlite":
        yield []
        return
    server: MariadbServer = request.getfixturevalue("mariadb")
    with server.database() as url:
        yield ["--catalog-url", url]


@pytest.fixture
def state(tmp_path: Path, where: list[str]) -> Path:
    state = tmp_path / "state"
    done(run("init", "--state-dir", state, *where))
    return state


@pytest.fixture
def catalog(state: Path) -> Iterator[Catalog]:
    catalog = Catalog(load_hub_settings(state / "hub.toml").catalog_url)
    yield catalog
    catalog.close()


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def done(result: Result) -> str:
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refused(result: Result) -> str:
    assert isinstance(result.exception, SendenseError), result.output
    return str(result.exception)


def db(state: Path, *arguments: object) -> Result:
    return run("db", *arguments, "--config", state / "hub.toml")


def execute(catalog: Catalog, statement: str) -> None:
    with catalog.write() as session:
        session.execute(text(statement))


def test_init_makes_a_catalog_and_changes_nothing_when_repeated(
    state: Path, where: list[str], catalog: Catalog
) -> None:
    before = (state / "hub.toml").read_text()
    said = done(run("init", "--state-dir", state, *where))
    assert str(catalog) in said
    assert (state / "hub.toml").read_text() == before
    catalog.require_newest()
    assert (state / "catalog.db").exists() == (not where)


def test_init_leaves_repositories_as_their_administrator_made_them(
    state: Path, catalog: Catalog, tmp_path: Path
) -> None:
    parts, first, nas = Parts(catalog), state / "repository", tmp_path / "nas"

    def repositories() -> list[tuple[str, str, bool]]:
        with catalog.read() as session:
            return [(row.name, row.path, row.is_default) for row in all_repositories(session)]

    def repeated(folder: Path, *more: str) -> Result:
        return run("init", "--state-dir", state, "--repository", folder, *more)

    rename_repository(parts, "default", "main")
    create_repository(parts, name="nas", path=str(nas), default=True)
    both = [("main", str(first), False), ("nas", str(nas), True)]
    for arguments in ([], ["--repository", first], ["--repository", nas]):
        said = done(run("init", "--state-dir", state, *arguments))
        assert f"{first} (main)\n" in said
        assert f"{nas} (nas, default)\n" in said
        assert repositories() == both

    delete_repository(parts, "main")
    assert f"nas in {nas}" in refused(repeated(first))
    # As a container's entry point does at every start.
    done(repeated(first, "--if-none"))
    assert repositories() == [("nas", str(nas), True)]
    assert not first.exists()

    delete_repository(parts, "nas")
    done(repeated(first, "--if-none"))
    assert repositories() == [("default", str(first), True)]


def test_init_knows_a_repository_by_a_link_to_its_folder(state: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(state / "repository")
    done(run("init", "--state-dir", state, "--repository", tmp_path / "link"))


def test_init_whose_repository_could_not_be_made_makes_it_when_repeated(
    tmp_path: Path, where: list[str]
) -> None:
    arguments = ["--state-dir", tmp_path / "state", "--repository", tmp_path / "away" / "repo"]
    assert "parent folder" in refused(run("init", *arguments, *where))
    (tmp_path / "away").mkdir()
    assert f"{tmp_path}/away/repo (default, default)\n" in done(run("init", *arguments, *where))


def test_check_finds_nothing_after_init(state: Path) -> None:
    said = done(db(state, "check"))
    assert said == "checked  0 contexts, 0 jobs, 0 disks, 0 layers\nfindings none\n"


def test_check_looks_for_the_layers_of_real_backups(state: Path, catalog: Catalog) -> None:
    settings = load_hub_settings(state / "hub.toml").model_copy(update={"listen": "127.0.0.1:0"})
    with Hub(settings) as hub, grpc.insecure_channel(str(hub.address)) as channel:
        job = _back_up(RunningHub(hub, channel))
    with HubLock(catalog):
        result = db(state, "check", "--json")
    report = json.loads(done(result))
    assert report["findings"] == []
    assert report["checked"] == {"contexts": 1, "jobs": 1, "disks": 2, "layers": 2}
    assert report["remarks"] == ["a hub serves from this catalog, or its schema is being changed"]

    (layer,) = (state / "repository").glob(f"*/{job}/disk-0.qcow2")
    with layer.open("ab") as file:
        file.write(b"x")
    layer.with_name("disk-1.qcow2").unlink()
    result = db(state, "check")
    assert result.exit_code == 1
    longer, missing = result.stdout.splitlines()[:2]
    for line in (longer, missing):
        assert line.startswith(f"files  repository default, job {job}  ")
        assert f"sendense job delete {job}" in line
    assert f"{job}/disk-0.qcow2: layer and manifest have" in longer
    assert f"{job}/disk-1.qcow2: No such file" in missing
    assert result.stdout.endswith("findings 2\n")


def test_check_says_which_repository_it_could_not_ask(state: Path) -> None:
    (state / "repository" / "sendense-repository.json").unlink()
    result = db(state, "check")
    assert result.exit_code == 0
    assert "layers of repository default were not looked for" in result.stderr
    assert "is it mounted?" in result.stderr


def test_check_of_broken_rows_ends_with_1(state: Path, catalog: Catalog) -> None:
    _add_context(catalog)
    execute(catalog, "UPDATE vm_backup_contexts SET restore_point_count = 7")
    result = db(state, "check", "--json")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert (finding["area"], finding["subject"]) == ("counters", "context-1")


def test_check_of_another_schema_looks_at_nothing_else(state: Path) -> None:
    done(db(state, "downgrade", "0001"))
    result = db(state, "check")
    assert result.exit_code == 1
    assert "db upgrade" in result.stdout
    assert "rows and files are checked once the schema is right" in result.stderr


def test_schema_goes_down_and_up_by_command(state: Path, catalog: Catalog) -> None:
    newest = newest_revision()
    said = done(db(state, "downgrade", "0001"))
    assert f"undone  {newest}" in said
    assert said.endswith("catalog is at revision 0001\n")
    shown = json.loads(done(db(state, "current", "--json")))
    assert shown["catalog"] == "0001"
    assert shown["program"] == newest
    assert "run sendense-hub db upgrade" in shown["problem"]
    served = subprocess.run(
        [*PROGRAM, "serve", "--config", state / "hub.toml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert served.returncode == 2
    assert served.stderr == (
        f"sendense-hub: catalog: its schema is at revision 0001, this program needs {newest}: "
        "run sendense-hub db upgrade\n"
    )
    said = done(db(state, "upgrade"))
    assert "copy  " in said
    assert f"made   {newest}" in said
    assert said.endswith(f"catalog is at revision {newest}\n")
    catalog.require_newest()
    assert "nothing to do" in done(db(state, "upgrade"))
    assert done(db(state, "current")) == f"catalog {newest}, program {newest}\n"


def test_init_upgrades_an_older_catalog(state: Path, catalog: Catalog) -> None:
    done(db(state, "downgrade", "0001"))
    assert "made   0002" in done(run("init", "--state-dir", state))
    catalog.require_newest()


@pytest.mark.mariadb
def test_init_waits_for_statements_longer_than_a_hub_that_serves(
    tmp_path: Path, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A statement takes long: it waits for a table that somebody else reads."""
    state = tmp_path / "state"
    serving_s = 1
    slow = (
        "SELECT id FROM information_schema.processlist "
        "WHERE state LIKE 'Waiting for table metadata lock' AND time_ms > %s"
    )
    with mariadb.database() as url, ThreadPoolExecutor(1) as pool:
        done(run("init", "--state-dir", state, "--catalog-url", url))
        done(db(state, "downgrade", "0001"))
        monkeypatch.setattr(catalog_of, "__kwdefaults__", {"statement_timeout_s": serving_s})
        catalog = Catalog(url)
        with catalog.engine.connect() as reader:
            reader.execute(text("SELECT COUNT(*) FROM backup_jobs"))
            upgrading = pool.submit(run, "init", "--state-dir", state)
            for attempt in Retrying(stop=stop_after_delay(30), wait=wait_fixed(0.05)):
                with attempt:
                    assert not upgrading.done(), upgrading.result().exception
                    assert mariadb.run(slow, serving_s * 1500)
        assert "made   0002" in done(upgrading.result(60))
        catalog.require_newest()
        catalog.close()


def test_newer_catalog_is_refused_by_every_command(state: Path, catalog: Catalog) -> None:
    execute(catalog, "UPDATE alembic_version SET version_num = '0999'")
    words = "0999.*a newer sendense-hub made it; install that one"
    for result in (
        run("init", "--state-dir", state),
        db(state, "upgrade"),
        db(state, "downgrade", "0001"),
    ):
        assert re.search(words, refused(result))
    served = subprocess.run(
        [*PROGRAM, "serve", "--config", state / "hub.toml"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert served.returncode == 2
    assert re.search(words, served.stderr)
    assert len(served.stderr.splitlines()) == 1
    assert "newer sendense-hub" in done(db(state, "current"))


def test_schema_is_not_changed_while_a_hub_serves(
    state: Path, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_lock, "WAIT_S", 0)
    with HubLock(catalog):
        assert "another sendense-hub" in refused(db(state, "downgrade", "0001"))
    done(db(state, "downgrade", "0001"))
    with HubLock(catalog):
        assert "another sendense-hub" in refused(db(state, "upgrade"))
        assert "another sendense-hub" in refused(run("init", "--state-dir", state))
    assert catalog.revision() == "0001"


def test_second_hub_on_a_catalog_is_refused(
    state: Path, catalog: Catalog, where: list[str], tmp_path: Path
) -> None:
    second = tmp_path / "second"
    url = ["--catalog-url", catalog.url.render_as_string(hide_password=False)]
    done(run("init", "--state-dir", second, *url))
    with HubLock(catalog):
        ended = subprocess.run(
            [*PROGRAM, "serve", "--config", second / "hub.toml", "--listen", "127.0.0.1:0"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert ended.returncode == 2
    assert ended.stderr.startswith("sendense-hub: catalog: another sendense-hub")
    assert "a catalog has one hub at a time" in ended.stderr


def test_init_with_another_catalog_is_refused(state: Path, tmp_path: Path) -> None:
    said = refused(
        run("init", "--state-dir", state, "--catalog-url", f"sqlite:///{tmp_path}/other.db")
    )
    assert said.startswith("--catalog-url: ")
    assert "names another catalog" in said
    assert not (tmp_path / "other.db").exists()


@pytest.mark.mariadb
def test_init_that_cannot_use_the_catalog_leaves_nothing_in_the_way(
    tmp_path: Path, mariadb: MariadbServer
) -> None:
    state = tmp_path / "state"
    wrong = mariadb.url("not_there")
    assert "CREATE DATABASE" in refused(run("init", "--state-dir", state, "--catalog-url", wrong))
    assert list(state.iterdir()) == []
    with mariadb.database() as url:
        done(run("init", "--state-dir", state, "--catalog-url", url))


@pytest.mark.mariadb
def test_password_comes_from_a_file_or_the_environment(
    tmp_path: Path, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, secret = tmp_path / "state", tmp_path / "catalog-password"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    with mariadb.database() as root_url:
        name = str(make_url(root_url).database)
        mariadb.run("CREATE USER 'hub'@'localhost' IDENTIFIED BY %s", SECRET)
        mariadb.run(f"GRANT ALL PRIVILEGES ON `{name}`.* TO 'hub'@'localhost'")
        try:
            url = mariadb.url(name, user="hub")
            options = ("--catalog-url", url, "--catalog-password-file", secret)
            done(run("init", "--state-dir", state, *options))
            config = (state / "hub.toml").read_text()
            assert f'catalog_password_file = "{secret}"' in config
            assert SECRET not in config
            done(db(state, "check"))
            secret.write_text("wrong")
            assert "refuses user 'hub'" in refused(db(state, "check"))
            # The environment goes before the file.
            monkeypatch.setenv("SENDENSE_HUB_CATALOG_PASSWORD", SECRET)
            done(db(state, "check"))
        finally:
            mariadb.run("DROP USER 'hub'@'localhost'")


@pytest.mark.mariadb
def test_environment_puts_the_catalog_on_a_server(
    tmp_path: Path, mariadb: MariadbServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose entry point gives `init` no URL."""
    with mariadb.database() as url:
        monkeypatch.setenv("SENDENSE_HUB_CATALOG_URL", url)
        for _ in range(2):
            done(run("init", "--state-dir", tmp_path / "state"))
        assert not (tmp_path / "state" / "catalog.db").exists()
        assert done(db(tmp_path / "state", "check")).endswith("findings none\n")
        catalog = Catalog(url)
        catalog.require_newest()
        catalog.close()


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (
            ["--catalog-url", f"mysql+pymysql://u:{SECRET}@127.0.0.1/d"],
            "--catalog-url: has a password in it",
        ),
        (["--catalog-url", "mysql+pymysql://127.0.0.1/d"], "--catalog-url: names no user"),
        (["--catalog-password-file", "{0}/none"], "--catalog-password-file: goes with"),
        (
            ["--catalog-url", "sqlite:///{0}/x.db", "--catalog-password-file", "{0}/none"],
            "none: No such file",
        ),
        (
            ["--catalog-url", "sqlite:///{0}/x.db", "--catalog-password-file", "/dev/null"],
            "the password is empty",
        ),
    ],
)
def test_option_of_init_that_cannot_be_used_is_named(
    tmp_path: Path, options: list[str], problem: str
) -> None:
    state = tmp_path / "state"
    result = run("init", "--state-dir", state, *(each.format(tmp_path) for each in options))
    said = refused(result)
    assert problem in said
    assert SECRET not in said
    assert not state.exists()


def test_password_in_the_configuration_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\ncatalog_url = "sqlite:///{tmp_path}/catalog.db"\n'
        f'catalog_password = "{SECRET}"\n'
    )
    with pytest.raises(SendenseError, match="a password does not belong here") as caught:
        load_hub_settings(config)
    assert SECRET not in str(caught.value)


def test_password_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    config = tmp_path / "hub.toml"
    config.write_text(
        f'state_dir = "{tmp_path}"\ncatalog_url = "mysql+pymysql://u@127.0.0.1/d"\n'
        'catalog_password_file = "secret"\n'
    )
    with pytest.raises(SendenseError, match=f"catalog_password_file: {tmp_path}/secret: No such"):
        load_hub_settings(config)
    (tmp_path / "secret").write_text(SECRET)
    settings = load_hub_settings(config)
    assert settings.catalog_password is not None
    assert settings.catalog_password.get_secret_value() == SECRET
    assert SECRET not in repr(settings)


def test_unwise_passwords_are_warned_of_and_not_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    warn_of_configuration(
        HubSettings(
            state_dir=tmp_path,
            catalog_url=f"mysql+pymysql://u:{SECRET}@127.0.0.1/d",
            catalog_password_file=secret,
        )
    )
    said = "".join(capsys.readouterr())
    assert "password_in_catalog_url" in said
    assert "password_file_readable_by_others" in said
    assert SECRET not in said


@pytest.mark.parametrize("command", [[], ["init"], ["serve"], ["db"], ["db", "check"]])
def test_short_help_option_is_known(command: list[str]) -> None:
    assert "Usage:" in done(run(*command, "-h"))


def _back_up(hub: RunningHub) -> str:
    with FakeAgent(hub.address, "lab", [FakeVm()]).connect() as agent:
        job = hub.start().job_id
        agent.expect("start_job")
        agent.run_job(job, [FakeDisk("AB"), FakeDisk("CD", key=2001, uuid="u2")])
        hub.wait(job)
    return str(job)


def _add_context(catalog: Catalog) -> None:
    execute(
        catalog,
        "INSERT INTO vm_backup_contexts (context_id, vm_name, vmware_vm_id, instance_uuid, site, "
        "repository_id, total_backups_run, successful_backups, failed_backups, created_at) "
        "SELECT 'context-1', 'vm', 'vm-1', 'uuid', 'lab', id, 0, 0, 0, created_at "
        "FROM backup_repositories",
    )
