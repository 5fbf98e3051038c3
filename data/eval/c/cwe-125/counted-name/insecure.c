    memcpy(out, record + 1, length);
    out[length] = '\0';
    return length;
}
