    return message[length - 1];
}
