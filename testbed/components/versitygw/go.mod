module rekindle.test/versitygw

go 1.26.6

require github.com/versity/versitygw v1.8.0
