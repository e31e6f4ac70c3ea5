"""The demo: the whole product against the sandbox gateway, watched live and checked at the end."""
