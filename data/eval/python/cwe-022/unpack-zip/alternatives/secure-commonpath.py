            root = os.path.realpath(folder)
            if os.path.commonpath([root, os.path.realpath(target)]) != root:
                raise ValueError(item.filename)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open(target, "wb") as out:
                out.write(bundle.read(item))
