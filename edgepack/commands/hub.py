"""`edgepack hub`: run the central fleet API in the foreground."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("hub")
@click.option(
    "--data", type=click.Path(path_type=Path), help="Data folder. Default: edgepack/hub in the user's data folder."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; off loopback it needs TLS.")
@click.option(
    "--port",
    default=8090,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="Port to listen on; 0 takes any free one.",
)
@click.option("--tls-cert", type=click.Path(path_type=Path), help="PEM file with the certificate chain.")
@click.option("--tls-key", type=click.Path(path_type=Path), help="PEM file with its private key.")
@click.option(
    "--check-in",
    "check_in_s",
    default=5.0,
    show_default=True,
    type=click.FloatRange(0.1, 86_400),
    help="Seconds between two questions of a device.",
)
def command(
    data: Path | None, host: str, port: int, tls_cert: Path | None, tls_key: Path | None, check_in_s: float
) -> None:
    """Run the hub: models, pipelines, devices, assignments, the log, a registry and a web page.

    The first start prints the admin token; it stays in the data folder, where commands on this machine find it.

    \b
    Example:
      edgepack hub
      edgepack publish model.onnx
      edgepack devices token
    """
    import logging

    import platformdirs

    from hub.config import HubConfig
    from hub.run import run_hub

    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    folder = data or platformdirs.user_data_path("edgepack") / "hub"
    config = HubConfig(folder.absolute(), host, port, tls_cert, tls_key, check_in_s).check()
    run_hub(config, _announce)


def _announce(url: str, token_file: Path, new_token: str | None) -> None:
    """Say where the hub is, and at its first start its token; remember for this user where the token lies."""
    from edgepack.commands._logins import remember_token_file

    remember_token_file(url, token_file)
    if new_token is not None:
        click.echo(f"admin token: {new_token}")
        click.echo(f"             shown once; kept in {token_file}")
    click.echo(f"hub: {url}  (data: {token_file.parent}; page, API and registry; Ctrl-C ends it)")
