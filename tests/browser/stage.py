"""What browser tests share: the running product as its backend and its operator see it."""

from dataclasses import dataclass

from chromium import Page
from product import Api

TOKEN = "s3cret-of-the-operators"


@dataclass
class Stage:
    """The running product, a backend that uses it, and an operator's tab."""

    address: str
    api: Api
    page: Page
    redis_url: str
