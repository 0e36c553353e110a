"""`qwen-tts api-key`: keys for the callers of the service."""

import re

import click


@click.group("api-key")
def api_key() -> None:
    """Keys for the callers of the service."""


@api_key.command("create")
@click.argument("name")
def create(name: str) -> None:
    """Create a key: its entry for the key file goes to stdout, the key itself to stderr, once.

    The entry has the key's hash. The setting api_keys.file names the key file. Voices stored with the key belong to
    NAME.
    """
    from deployments.access.key_file import KEY_NAME, hash_key, new_key

    if not re.fullmatch(KEY_NAME, name):
        raise click.ClickException(
            "NAME must be 1 to 64 ASCII letters, digits, '.', '_' or '-', and begin with a letter or digit"
        )
    key = new_key()
    click.echo(f'- {{name: "{name}", hash: "{hash_key(key)}"}}')
    click.echo(f"The key of {name}, shown this once: {key}", err=True)
