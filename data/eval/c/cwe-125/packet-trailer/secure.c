    if (size < 2)
        return 0;
    return (uint16_t)(packet[size - 2] << 8 | packet[size - 1]);
}
