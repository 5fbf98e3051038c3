        if field == "color":
            self.color = value
        elif field == "power":
            self.power = value
        return self.color, self.power
