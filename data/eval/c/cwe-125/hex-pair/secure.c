        if (*in == '%' && isxdigit((unsigned char)in[1]) && isxdigit((unsigned char)in[2])) {
            *out++ = digit(in[1]) * 16 + digit(in[2]);
            in += 2;
        } else {
            *out++ = *in;
        }
    }
    *out = '\0';
}
