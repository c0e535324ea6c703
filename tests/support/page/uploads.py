"""Files for the page, and what it sent of them."""

import email.policy
import hashlib
import io
from email.parser import BytesParser

from PIL import Image
from playwright.sync_api import FilePayload, FloatRect, Locator, Page, Request, expect

from tests.support.page.browser import generate

Sent = dict[str, bytes]
"""Parts of a form by their names."""


def photo(width: int = 512, height: int = 384, *, kind: str = "PNG") -> FilePayload:
    """Return an image file as a person chooses it: sky above, a meadow below."""
    image = Image.new("RGB", (width, height), "skyblue")
    image.paste("olivedrab", (0, height // 2, width, height))
    file = io.BytesIO()
    image.save(file, kind)
    name = f"meadow.{kind.lower()}"
    return {"name": name, "mimeType": f"image/{kind.lower()}", "buffer": file.getvalue()}


def digest(file: FilePayload) -> str:
    """Return the name that the service gives to the bytes of a file."""
    return hashlib.sha256(file["buffer"]).hexdigest()


def choose(page: Page, file: FilePayload) -> None:
    """Choose the image to start from, and wait until the form shows it."""
    page.get_by_label("Image to start from").set_input_files([file])
    expect(page.get_by_alt_text(f"Input image: {file['name']}")).to_be_visible()


def box_of(element: Locator) -> FloatRect:
    """Return where an element is in the window, in pixels."""
    box = element.bounding_box()
    assert box is not None
    return box


def stroke(board: Locator, *points: tuple[float, float]) -> None:
    """Draw a line with the brush through points, each in shares of width and height."""
    box, mouse = box_of(board), board.page.mouse
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    mouse.move(*places[0])
    mouse.down()
    for place in places:
        mouse.move(*place, steps=4)
    mouse.up()


def drop(page: Page, zone: str, name: str, data: bytes) -> None:
    """Drop a file on a part of the page, as a person does."""
    transfer = page.evaluate_handle(
        """([name, bytes]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], name));
            return transfer;
        }""",
        [name, list(data)],
    )
    page.dispatch_event("body", "dragover", {"dataTransfer": transfer})
    place = page.locator(".drop").get_by_text(zone)
    expect(place).to_be_visible()
    place.dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.locator(".drop")).to_have_count(0)


def sent_by(page: Page, prompt: str, **numbers: int) -> Sent:
    """Generate, and return the parts of the form that the page sends."""
    # Chromium tells what a form with files sent only to those who could change it.
    page.route("**/*", lambda route: route.continue_())
    with page.expect_request(lambda request: request.method == "POST") as order:
        generate(page, prompt, **numbers)
    found = parts(order.value)
    page.unroute_all(behavior="wait")
    return found


def parts(request: Request) -> Sent:
    """Return the parts of the form that a request sent."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    body = request.post_data_buffer
    assert body is not None
    form = BytesParser(policy=email.policy.HTTP).parsebytes(head + body)
    found: Sent = {}
    for part in form.iter_parts():
        name = part.get_param("name", header="content-disposition")
        data = part.get_payload(decode=True)
        assert isinstance(name, str)
        assert isinstance(data, bytes)
        found[name] = data
    return found


def mask_in(sent: Sent) -> Image.Image:
    """Return the mask of a form, in grey."""
    return Image.open(io.BytesIO(sent["mask"])).convert("L")
