        exec(f"self.{field} = '{value}'")
        return self.color, self.power
