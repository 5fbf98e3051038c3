        unsigned next = value * base;
        if (base > 1 && next < value)
            return false;
        value = next;
    }
    *result = value;
    return true;
}
