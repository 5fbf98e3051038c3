        if ((text[i + length - 1] & 0xC0) == 0x80 || length == 1)
            count++;
        i += length;
    }
    return count;
}
