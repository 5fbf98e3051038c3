    return (uint16_t)(packet[size - 2] << 8 | packet[size - 1]);
}
