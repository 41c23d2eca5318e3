"""The images of a run, as files."""

import pathlib
import shutil
from typing import Any

from PIL import Image

from aal.config.errors import UserError
from aal.config.loading import read_config, resolve
from aal.storage.run_reader import RunReader


class Images:
    """The images behind the ids: the source files, or else PNG files made from the prepared arrays.

    Args:
        run: the run directory.

    Raises:
        UserError: the images are not there any more, or the run had none.
    """

    def __init__(self, run: pathlib.Path) -> None:
        from aal.app.data import open_set, prepare

        settings = resolve(read_config(run / "config.yaml"), str(run / "config.yaml"))
        if settings.examples is not None:
            raise UserError(f"{run}: its images were imagined (examples: {settings.examples}); use --format csv")
        self.root = pathlib.Path(settings.data_dir).expanduser()
        prepared = open_set(prepare(settings))
        with RunReader(run) as reader:
            wanted = reader.meta().get("images")
        if prepared.folder.name != wanted:
            raise UserError(f"{run}: data_dir {settings.data_dir} no longer holds the images that the run began with")
        self._pixels = prepared.images

    def source(self, row: dict[str, Any]) -> pathlib.Path | None:
        """Returns the source file of a label's image; None where it has none or the file is gone."""
        if row["path"] is None:
            return None
        path = self.root / row["path"]
        return path if path.is_file() else None

    def suffix(self, row: dict[str, Any]) -> str:
        """Returns the ending of the file that `copy` writes."""
        source = self.source(row)
        return ".png" if source is None else source.suffix.lower()

    def copy(self, row: dict[str, Any], path: pathlib.Path) -> None:
        """Writes the image of a label to a file: the source file as it is, or a PNG file of the prepared pixels."""
        path.parent.mkdir(parents=True, exist_ok=True)
        source = self.source(row)
        if source is not None:
            shutil.copyfile(source, path)
        else:
            Image.fromarray(self._pixels[row["id"]].squeeze()).save(path)

    def size(self, row: dict[str, Any]) -> tuple[int, int]:
        """Returns width and height in pixels of the file that `copy` writes.

        Raises:
            UserError: the source file is not an image any more.
        """
        source = self.source(row)
        if source is None:
            height, width = self._pixels.shape[1:3]
            return width, height
        from aal.app.data.picture_files import open_picture

        try:
            with open_picture(source) as image:
                return image.size
        except OSError as error:
            raise UserError(f"{source}: cannot be read as an image: {error}") from None
