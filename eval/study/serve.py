"""`moviegen eval study serve`: one process that serves the rating page and the admin page of one study.

Needs no network and no build step. No access log is written, and no address of a rater is stored or printed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moviegen_eval.config import parse_config
from moviegen_eval.files import write_atomically
from moviegen_eval.study.assign import Desk, Rules
from moviegen_eval.study.built import check_built, read_built
from moviegen_eval.study.settings import StudyServeConfig
from moviegen_eval.study.store import Store
from moviegen_eval.study.study import Study, load_study
from moviegen_eval.study.writer import Writer
from omegaconf import DictConfig

LINKS = "links.txt"


def serve(cfg: DictConfig | Mapping[str, Any]) -> None:
    """Serve the study of `conf/study_serve.yaml` until Ctrl-C or SIGTERM. Raises ValueError of one line before."""
    config = parse_config(StudyServeConfig, cfg, "study serve")
    with open_service(config) as service, listening(config) as listener:
        scheme = "https" if config.certificate else "http"
        url = (config.url or f"{scheme}://{_shown(config.host)}:{listener.getsockname()[1]}").rstrip("/")
        _write_links(service, Path(config.out), url)
        if warning := too_few(config, service.study):
            print(warning, flush=True)
        new_server(config, service).run(sockets=[listener])


def too_few(config: StudyServeConfig, study: Study) -> str | None:
    """What to say where so many raters can never finish the study; None where they can, or others may come."""
    once = config.pairs_once
    needed = sum(axis.raters for axis in study.axes) if once else max(axis.raters for axis in study.axes)
    if not 0 < config.raters < needed or config.anyone or config.external:
        return None
    each = "a rater sees a pair on one axis only" if once else "a rater sees a pair once on each axis"
    hint = "; pairs_once=false shows it to them on each axis" if once and len(study.axes) > 1 else ""
    return f"warning: {config.raters} raters cannot finish this study: every pair needs {needed}, since {each}{hint}"


def new_server(config: StudyServeConfig, service: Any) -> Any:
    """The uvicorn server of a service."""
    import uvicorn
    from moviegen_eval.study.app import create_app

    settings = uvicorn.Config(
        create_app(service),
        access_log=False,  # it would hold addresses
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
        ssl_certfile=config.certificate,
        ssl_keyfile=config.private_key,
    )
    return uvicorn.Server(settings)


@contextmanager
def open_service(config: StudyServeConfig) -> Iterator[Any]:
    """The study's state, ready to be served; closes the database at the end."""
    from moviegen_eval.study.app import Options, Service

    study = load_study(config.study)
    built = read_built(Path(config.built), study.digest)
    check_built(built, study)
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    rules = Rules(
        gold_every=config.gold_every,
        tasks_per_rater=config.tasks_per_rater,
        pairs_once=config.pairs_once,
        lease_seconds=60 * config.lease_minutes,
    )
    store = Store(config.database or f"sqlite:///{out / 'votes.sqlite'}", study.digest)
    try:
        writer = Writer(store, lambda: Desk(study, rules, built.durations), out / "votes.jsonl")
        options = Options(
            anyone=config.anyone,
            external=config.external,
            completion=config.completion,
            max_raters=config.max_raters,
        )
        service = Service(study, built, store, writer, options)
        try:
            writer.submit(lambda desk: _invite(service, desk, config.raters)).result()
            yield service
        finally:
            writer.close()
    finally:
        store.close()


def _invite(service: Any, desk: Desk, count: int) -> None:
    """As many raters with a code of their own as are asked for, those of earlier runs included."""
    for _ in range(count - sum(rater.external is None for rater in desk.raters.values())):
        service.add_rater(desk)


def _write_links(service: Any, out: Path, url: str) -> None:
    codes = service.writer.submit(
        lambda desk: [rater.code for rater in desk.raters.values() if rater.external is None]
    ).result()
    admin = f"{url}/admin#token={service.store.admin}"
    lines = [f"# admin page: {admin}", *(f"{url}/#code={code}" for code in codes)]
    path = out / LINKS
    write_atomically(path, "\n".join(lines) + "\n")
    path.chmod(0o600)  # who has a link can vote
    print(f"rating page: {url}/  ({len(codes)} links in {path})\nadmin page:  {admin}", flush=True)
    print(f"votes so far: {out / 'votes.jsonl'}; stop with Ctrl-C, the same command goes on", flush=True)


@contextmanager
def listening(config: StudyServeConfig) -> Iterator[socket.socket]:
    """A socket on the wanted port. Raises ValueError of one line where there is none."""
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((config.host, config.port))
        except OSError as error:
            raise ValueError(f"cannot listen on {config.host} port {config.port}: {error.strerror}") from None
        listener.listen(1024)
        yield listener


def _shown(host: str) -> str:
    """A host as it stands in a link from this machine."""
    if host in ("0.0.0.0", "::"):
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host
