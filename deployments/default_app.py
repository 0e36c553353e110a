"""The application with every setting at its default, for tools that want an object: `serve build`."""

from deployments.app import build_app
from deployments.settings import AppArgs

app = build_app(AppArgs())
