from wsgiref.simple_server import make_server

from jinja2 import Template


def page(name):
    return Template("Hello {{ name }}").render(name=name)


def answer(environ, start):
    start("200 OK", [("Content-Type", "text/plain")])
    return [page(environ["PATH_INFO"]).encode()]


if __name__ == "__main__":
    make_server("", 8000, answer).serve_forever()
