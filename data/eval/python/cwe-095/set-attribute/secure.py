        if field in ("color", "power"):
            setattr(self, field, value)
        return self.color, self.power
