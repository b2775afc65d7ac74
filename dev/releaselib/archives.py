"""Archives that depend on nothing but their files: the same ones, with the same time, give the same bytes."""
import gzip
import io
import tarfile


def write(path, files, time):
    """A tar of `files` (the name, the content and the mode of each), compressed unless it is called so."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as tar:
        for name, data, mode in files:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), mode, time
            tar.addfile(member, io.BytesIO(data))
    path.write_bytes(content.getvalue() if path.suffix == ".tar" else gzip.compress(content.getvalue(), mtime=time))


def of_folder(path, folder, time):
    """A folder, which is in the archive by its name."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    write(path, [(str(file.relative_to(folder.parent)), file.read_bytes(), 0o644) for file in files], time)


def again(path, time):
    """The same for an archive that another program has made, with the times of that moment."""
    with tarfile.open(path) as tar:
        files = [(member.name, tar.extractfile(member).read(), member.mode & 0o777) for member in tar if member.isfile()]
    write(path, sorted(files), time)
